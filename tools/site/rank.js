// What is best of what a search finds: titles of pages, then headings and names, then prose, and code last. Used by site.js and by the tests.
'use strict';
const wordsOf = query => query.toLowerCase().split(/[\s,;:()?!"']+/).filter(word => word.length > 1);

// Whole words count more than beginnings, and these more than parts
const match = (text, word, whole, begins, inside) => {
    const at = text.indexOf(word);
    if (at < 0) return 0;
    const escaped = word.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
    if (new RegExp(`(^|[^\\p{L}\\p{N}_])${escaped}($|[^\\p{L}\\p{N}_])`, 'u').test(text)) return whole;
    return new RegExp(`(^|[^\\p{L}\\p{N}_])${escaped}`, 'u').test(text) ? begins : inside;
};
const often = (text, word, most) => Math.min(text.split(word).length - 1, most);

const worth = (words, [id, , title, section, prose, code]) => {
    let sum = 0;
    for (const word of words) {
        const name = section === word || section.endsWith(`.${word}`);
        const found = (section ? .2 : 1) * match(title, word, 60, 45, 15)
            + (name ? 55 : match(section, word, 40, 28, 8)) + 2 * often(prose, word, 5) + .4 * often(code, word, 5);
        if (!found) return 0;
        sum += found;
    }
    const phrase = words.join(' ');                       // the words together say more than each of them
    if (words.length > 1 && (title + ' ' + section).includes(phrase)) sum += 40;
    else if (words.length > 1 && prose.includes(phrase)) sum += 15;
    return sum / words.length;
};

// Rows with the words that were found in them, best first; a synonym counts a little less than the words themselves
const rank = (query, rows, synonyms) => {
    const asked = wordsOf(query), phrase = asked.join(' ');
    const ways = [[asked, 1], ...(synonyms[phrase] ?? []).map(other => [wordsOf(other), .9])];
    for (const [i, word] of asked.entries()) {
        if (asked.length > 1) for (const other of synonyms[word] ?? []) ways.push([asked.toSpliced(i, 1, ...wordsOf(other)), .8]);
    }
    const found = [];
    for (const row of rows) {
        const lower = row.map(part => part.toLowerCase());
        let best = 0, words = asked;
        for (const [way, share] of ways) {
            const sum = share * worth(way, lower);
            if (sum > best) { best = sum; words = way; }
        }
        if (best) found.push({row, words, sum: best});
    }
    return found.sort((a, b) => b.sum - a.sum);
};
