// What a page does: light or dark, the list of pages on a phone, search, copying, and where one is. Without it everything can still be read.
'use strict';
const root = document.documentElement, one = selector => document.querySelector(selector), all = selector => [...document.querySelectorAll(selector)];
const keep = (name, value) => { try { localStorage.setItem(name, value); } catch { /* a private window keeps nothing */ } };

// --- Light or dark: as the machine has it, until the reader chooses
one('#theme').addEventListener('click', () => {
    const dark = getComputedStyle(root).colorScheme === 'dark';
    root.dataset.theme = dark ? 'light' : 'dark';
    keep('theme', root.dataset.theme);
});

// --- The pages, on a phone
const menu = one('#menu'), pages = one('#pages');
const unfold = open => { pages.classList.toggle('open', open); menu.setAttribute('aria-expanded', open); };
menu.addEventListener('click', () => {
    unfold(!pages.classList.contains('open'));
    if (pages.classList.contains('open')) pages.querySelector('[aria-current], a').focus();
});
document.addEventListener('click', event => { if (!pages.contains(event.target) && !menu.contains(event.target)) unfold(false); });
document.addEventListener('keydown', event => {
    if (event.key === 'Escape' && pages.classList.contains('open')) { unfold(false); menu.focus(); }
});
const here = pages.querySelector('[aria-current]');
if (here && here.offsetTop > pages.clientHeight - 60) pages.scrollTop = here.offsetTop - pages.clientHeight / 2;

// --- Search (rank.js says what is best)
const query = one('#query'), hits = one('#hits');
let chosen = -1, loading;
const load = () => loading ??= new Promise((done, failed) => {  // a script, not a request, so that it works from a disk too
    const script = document.createElement('script');
    Object.assign(script, {src: root.dataset.up + 'site/found.js', onload: done, onerror: failed});
    document.head.append(script);
});
const part = (tag, text, words = []) => {  // text only: nothing that is found can become markup
    const node = document.createElement(tag), lower = text.toLowerCase();
    let at = 0;
    while (at < text.length && words.length) {
        const next = words.map(word => [lower.indexOf(word, at), word]).filter(([place]) => place >= 0).sort((a, b) => a[0] - b[0])[0];
        if (!next) break;
        const mark = document.createElement('mark');
        mark.textContent = text.slice(next[0], next[0] + next[1].length);
        node.append(text.slice(at, next[0]), mark);
        at = next[0] + next[1].length;
    }
    node.append(text.slice(at));
    return node;
};
const choose = place => {
    const rows = all('#hits [role=option]');
    chosen = rows.length ? (place + rows.length) % rows.length : -1;
    rows.forEach((row, i) => row.setAttribute('aria-selected', i === chosen));
    query.setAttribute('aria-activedescendant', chosen < 0 ? '' : rows[chosen].id);
    rows[chosen]?.scrollIntoView({block: 'nearest'});
};
const show = open => { hits.hidden = !open; query.setAttribute('aria-expanded', open); };
const search = async () => {
    if (!wordsOf(query.value).length) return show(false);
    await load();
    const found = rank(query.value, window.found, window.synonyms).slice(0, 20);
    hits.replaceChildren(...found.map(({row: [id, href, title, section, prose, code], words}, i) => {
        const shown = words.some(word => prose.toLowerCase().includes(word)) || !code ? prose : code;
        const item = document.createElement('li'), link = document.createElement('a');
        Object.assign(item, {id: `hit-${i}`, role: 'option'});
        Object.assign(link, {href: root.dataset.up + href + (id ? '#' + id : ''), tabIndex: -1});
        const places = words.map(word => shown.toLowerCase().indexOf(word)).filter(place => place >= 0);
        const from = places.length ? Math.max(0, Math.min(...places) - 50) : 0;
        link.append(part('b', section ? `${section} · ${title}` : title, words), part('small', (from ? '…' : '') + shown.slice(from, from + 160), words));
        item.append(link);
        return item;
    }));
    if (!found.length) hits.append(Object.assign(document.createElement('li'), {className: 'none', textContent: 'Nothing found'}));
    choose(0);
    show(true);
};
query.addEventListener('input', search);
query.addEventListener('focus', () => { load(); if (query.value) search(); });
query.addEventListener('keydown', event => {
    if (event.key === 'Escape') { show(false); query.blur(); }
    if (hits.hidden) return;
    if (event.key === 'ArrowDown' || event.key === 'ArrowUp') { event.preventDefault(); choose(chosen + (event.key === 'ArrowDown' ? 1 : -1)); }
    if (event.key === 'Enter') { event.preventDefault(); all('#hits [role=option] a')[chosen]?.click(); }
});
document.addEventListener('click', event => { if (!event.target.closest('search') || event.target.closest('#hits a')) show(false); });
document.addEventListener('keydown', event => {
    const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement.tagName);
    if (!typing && !event.ctrlKey && !event.metaKey && !event.altKey && event.key === '/') { event.preventDefault(); query.focus(); }
});

// --- Copying
for (const button of navigator.clipboard ? all('.copy') : []) {
    button.hidden = false;
    button.textContent = 'Copy';
    button.addEventListener('click', async () => {
        await navigator.clipboard.writeText(button.parentElement.querySelector('code').textContent);
        button.textContent = 'Copied';
        setTimeout(() => { button.textContent = 'Copy'; }, 1500);
    });
}

// --- What is wider than the page scrolls inside itself, with the keyboard too
const reachable = () => {
    for (const box of all('main pre, main .scroll, main math[display=block]')) {
        if (box.scrollWidth > box.clientWidth + 1) box.tabIndex = 0; else box.removeAttribute('tabindex');
    }
};
reachable();
addEventListener('resize', reachable);

// --- Where one is on the page
const links = new Map(all('#contents a').map(link => [decodeURIComponent(link.hash.slice(1)), link]));
const heads = [...links.keys()].map(id => document.getElementById(id)).filter(Boolean);
const follow = () => {
    let now = null;
    for (const head of heads) { if (head.getBoundingClientRect().top < 120) now = head; else break; }
    for (const [id, link] of links) { if (now && id === now.id) link.setAttribute('aria-current', 'true'); else link.removeAttribute('aria-current'); }
};
if (heads.length) { addEventListener('scroll', follow, {passive: true}); follow(); }
