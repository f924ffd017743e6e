// Rate films, see what to watch next, and why. Texts of the service are inserted as text only, never as HTML.
'use strict';

const DEBOUNCE = 150;       // milliseconds without input before a request is sent
const MAX_RATINGS = 200;    // ratings that are kept
const STEP = 10;            // films added to the list at a time
const STARTERS = 8;         // popular films to rate at the start
const MAX_HIDDEN = 500;     // items of no interest that are kept
const MAX_ITEMS = 100;      // items in one request to the service, or in its response
const STAR = 'M12 2.6l2.9 6.2 6.8.8-5 4.7 1.3 6.7-6-3.3-6 3.3 1.3-6.7-5-4.7 6.8-.8z';
const ARTICLES = "(The|An?|Les?|La|L'|El|Los|Las|Il|Lo|Gli|Une?|Der|Die|Das|Den|Det)";
const ARTICLE = RegExp(`^(.*), ${ARTICLES}(?= \\(|$)`), INSIDE = RegExp(`\\(([^()]*), ${ARTICLES}\\)`, 'g');

const ratings = new Map();  // item -> {item, title, year, rating}, oldest first
const rows = new Map();     // item -> its row among the films to rate
const ORDERS = {            // orders that a model may offer: their names, and the answer that is explained
  liked: ['Next and liked', 'chance that it comes next and you like it'],
  next: ['Likely next', 'chance that it comes next'],
  rating: ['Highest rated', 'expected rating'],
  click: ['Likely liked', 'chance that you like it'],
};
let scale = [], orders = [], storage = '';      // from the service, at the start
let [one, many] = ['item', 'items'];            // what items are called, from the service as well
const link = new URLSearchParams(location.hash.slice(1));  // a list that came with the address of the page
const strangers = new Set();                    // stored items that the service does not know
const hidden = new Set();                       // items of no interest
let popular = [];           // films with the most ratings
let starters = [];          // popular films without a row
let removed = [];           // ratings removed by "Start again"
let listLength = STEP;      // requested films in the list
let open = null;            // item whose explanation is shown

const $ = id => document.getElementById(id);

function make(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in node) node[name] = value; else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

const unseen = text => make('span', {className: 'unseen'}, text);
const front = text => text.replace(ARTICLE, '$2 $1').replace(INSIDE, '($2 $1)').replaceAll("L' ", "L'");
const plain = ({item, title}) => front(title.replace(/\s*\(\d{4}\)\s*$/, '')) || title || String(item);
const things = n => count(n, one, many);
const note = ({year, genres}) => [year || '', (genres ?? '').replaceAll('|', ', ')].filter(Boolean).join(' · ');
const badge = film => film.new ? [make('span', {className: 'new', title: 'It came after the model was trained'}, 'new'), ' '] : [];
const named = (film, more) => make('span', {className: 'name'}, plain(film), ' ', ...badge(film), make('span', {className: 'note'}, String(more)));
const percent = share => Math.round(100 * share);
const chance = share => share < 1e-4 ? '<0.01%' : `${(100 * share).toFixed(share < .01 ? 2 : share < .1 ? 1 : 0)}%`;
const count = (n, one, many = `${one}s`) => `${n.toLocaleString('en')} ${n === 1 ? one : many}`;

function debounce(work) {
  let timer;
  return () => { clearTimeout(timer); timer = setTimeout(work, DEBOUNCE); };
}

// --- Requests: a channel is a kind of request, and a new request cancels the one before in its channel

const channels = new Map(), troubles = new Map();

async function send(channel, path, body) {
  channels.get(channel)?.abort();
  const mine = new AbortController();
  channels.set(channel, mine);
  const post = body && {method: 'POST', headers: {'Content-Type': 'application/json'}, body: JSON.stringify(body)};
  let answer, found;
  try {
    answer = await fetch(path, {signal: mine.signal, ...post});
    found = await answer.json().catch(() => null);
  } catch { /* reported below */ }
  mine.signal.throwIfAborted();
  if (!answer) throw new Error('the service does not answer');
  if (!answer.ok || !found) throw Object.assign(new Error(found?.error ?? `the service says ${answer.status}`), {status: answer.status});
  return found;
}

function cancel(channel) {
  channels.get(channel)?.abort();
  troubles.delete(channel);
  showTrouble();
}

async function attempt(channel, work) {
  try {
    await work();
    troubles.delete(channel);
  } catch (error) {
    if (error.name === 'AbortError') return;
    troubles.set(channel, {text: error.message, again: () => attempt(channel, work)});
  }
  showTrouble();
}

function showTrouble() {
  const [first] = troubles.values();
  if (!first && document.activeElement === $('retry')) $('find').focus();
  $('trouble').textContent = first ? `That did not work: ${first.text}.` : '';
  $('retry').hidden = !first;
}

$('retry').onclick = () => [...troubles.values()].forEach(({again}) => again());

// --- Stored in this browser, or in the address of a link: pairs of item and rating, which are checked when they are read

const isItem = item => Number.isSafeInteger(item) || (typeof item === 'string' && item.length > 0 && item.length <= 200);

function read(name) {
  try { return JSON.parse(name === storage && link.has('rated') ? link.get('rated') : localStorage.getItem(name)) ?? []; } catch { return []; }
}

function write(name, values) {
  if (name === storage && link.has('rated')) {
    link.set('rated', JSON.stringify(values));
    history.replaceState(null, '', `#${link}`);
  } else try { localStorage.setItem(name, JSON.stringify(values)); } catch { /* the storage may be full or disabled */ }
}

function saved() {
  const kept = read(storage);
  if (!Array.isArray(kept)) return [];
  return kept.filter(pair => Array.isArray(pair) && isItem(pair[0]) && scale.includes(pair[1])).slice(-MAX_RATINGS);
}

// Change what is stored now, which another tab may have written
function save(change) {
  const pairs = new Map(saved().filter(([item]) => !strangers.has(item)));
  change(pairs);
  write(storage, [...pairs].slice(-MAX_RATINGS));
}

// Take over what another tab has stored
const merge = () => attempt('merge', async () => {
  const pairs = new Map(saved());
  const films = new Map((await known([...pairs].filter(([item]) => !ratings.has(item)), 'merge')).map(film => [film.item, film]));
  const before = new Map(ratings);
  ratings.clear();
  for (const [item, rating] of pairs) {
    const film = before.get(item) ?? films.get(item);
    if (film) ratings.set(item, {...film, rating});
  }
  showFilms();
  changed();
});

addEventListener('storage', ({key}) => { if (key === storage && !link.has('rated')) merge(); });
addEventListener('hashchange', () => location.reload());

// Keep the pairs whose films the service knows; if one is unknown, try the halves
async function known(pairs, channel = 'start') {
  if (!pairs.length) return [];
  const half = pairs.length >> 1;
  const halves = async () => [...await known(pairs.slice(0, half), channel), ...await known(pairs.slice(half), channel)];
  if (pairs.length > MAX_ITEMS) return halves();
  try {
    const {items} = await send(channel, 'predict', {ratings: [], items: pairs.map(([item]) => item)});
    return items.map(({item, title, year, new: isNew}, n) => ({item, title, year, new: isNew, rating: pairs[n][1]}));
  } catch (error) {
    if (![404, 422].includes(error.status)) throw error;
    if (half) return halves();
    strangers.add(pairs[0][0]);
    return [];
  }
}

// --- Films to rate

function star(from, to) {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  const path = document.createElementNS('http://www.w3.org/2000/svg', 'path');
  const left = 24 * (from % 1), width = 24 * (to - from);
  svg.setAttribute('viewBox', `${left} 0 ${width} 24`);
  svg.setAttribute('aria-hidden', 'true');
  svg.classList.add(width === 24 ? 'whole' : left ? 'right' : 'left');
  path.setAttribute('d', STAR);
  svg.append(path);
  return svg;
}

// Whether people give ratings; where they only choose, the scale has one value
function rated() { return scale.length > 1; }

// Stars for a scale of whole and half stars, numbers for any other
function ratingControl(film) {
  const before = n => n ? scale[n - 1] : 0;
  const drawn = scale.every((value, n) => value - before(n) === .5 || (value - before(n) === 1 && value % 1 === 0));
  const legend = make('legend', {className: 'unseen'}, rated() ? `Your rating of ${plain(film)}` : `Did you choose ${plain(film)}?`);
  const labels = scale.map((value, n) => {
    const checked = ratings.get(film.item)?.rating === value;
    const input = make('input', {type: 'radio', name: `rating-${film.item}`, value: String(value), checked});
    const clear = event => {  // a second click on the same star clears it, and so does the space bar
      if (ratings.get(film.item)?.rating !== value) return false;
      event.preventDefault();
      setTimeout(() => { input.checked = false; });  // after the browser has restored what it showed before the event
      unrate(film.item);
      return true;
    };
    input.onclick = event => { clear(event); };
    let cleared = false;
    input.onkeydown = event => { cleared = event.key === ' ' && clear(event); };
    input.onkeyup = event => { if (cleared && event.key === ' ') event.preventDefault(); };
    input.onchange = () => rate(film, value);
    return make('label', {}, input, ...(drawn ? [star(before(n), value), unseen(rated() ? count(value, 'star') : 'chosen')] : [String(value)]));
  });
  return make('fieldset', {className: drawn ? 'stars' : 'numbers'}, legend, ...labels);
}

function addRow(film) {
  if (rows.has(film.item)) return;
  const remove = make('button', {type: 'button', className: 'remove', title: 'Remove', onclick: () => dropRow(film.item)},
    '×', unseen(`Remove ${plain(film)}`));
  const row = make('li', {}, named(film, film.year || ''), ratingControl(film), remove);
  rows.set(film.item, row);
  $('films').append(row);
}

function dropRow(item) {
  const row = rows.get(item), next = row.nextElementSibling ?? row.previousElementSibling, film = ratings.get(item);
  const before = row.nextElementSibling;
  row.remove();
  rows.delete(item);
  (next?.querySelector('.remove') ?? $('find')).focus();
  unrate(item);
  offerUndo(`${row.querySelector('.name').firstChild.textContent} is removed.`, $('films'), () => {
    rows.set(item, row);
    $('films').insertBefore(row, before?.isConnected ? before : null);
    if (film) rate(film, film.rating);
    row.querySelector('.remove').focus();
  });
}

// Say what was done, above a list, with a button that takes it back
function offerUndo(text, list, back) {
  list.before($('undone'));
  $('undone').hidden = false;
  $('undone').firstElementChild.textContent = text;
  $('undo').onclick = () => { $('undone').hidden = true; back(); };
}

function addStarters(n) {
  for (const film of starters.splice(0, n)) addRow(film);
  $('more-films').hidden = !starters.length;
}

function pick(film) {
  addRow(film);
  const row = rows.get(film.item);
  $('films').prepend(row);
  (row.querySelector(':checked') ?? row.querySelector('input')).focus({focusVisible: true});
}

function rate(film, rating) {
  ratings.set(film.item, {...film, rating});
  const [oldest] = ratings.keys();
  if (ratings.size > MAX_RATINGS) {
    rows.get(oldest)?.remove();
    rows.delete(oldest);
    ratings.delete(oldest);
  }
  save(pairs => pairs.set(film.item, rating));
  removed = [];
  rows.get(film.item)?.querySelector('fieldset').after(skip);  // so that the list is one step away for a keyboard
  changed();
}

function unrate(item) {
  if (!ratings.delete(item)) return;
  save(pairs => pairs.delete(item));
  changed();
}

function changed() {
  cancel('recommend');
  showCount();
  recommendSoon();
}

const skip = make('a', {className: 'skip', href: '#list', onclick: event => {
  event.preventDefault();
  ($('list').querySelector('.film') ?? $('list-title')).focus();
}}, 'To your list');

function showCount() {
  const none = 'Nothing rated yet. Start with one of these, or find another.';
  $('count').textContent = ratings.size ? `${things(ratings.size)} ${rated() ? 'rated' : 'chosen'}` : none;
  $('again').textContent = ratings.size ? 'Start again' : 'Bring my ratings back';
  $('again').hidden = !ratings.size && !removed.length;
  $('jump').hidden = !ratings.size;
}

// Draw the rows again: rated films, newest first, then popular ones
function showFilms() {
  rows.clear();
  $('films').replaceChildren();
  [...ratings.values()].reverse().forEach(film => addRow(film));
  starters = popular.filter(film => !ratings.has(film.item));
  addStarters(STARTERS);
}

// --- The list

const order = () => document.querySelector('#order :checked')?.value ?? orders[0];

// The orders as a group of buttons; a model with one answer has one order and nothing to choose
function showOrders() {
  const labels = orders.map((name, n) => make('label', {},
    make('input', {type: 'radio', name: 'order', value: name, defaultChecked: n === 0}), ORDERS[name]?.[0] ?? name));
  $('order').append(...labels);
  $('order').hidden = orders.length < 2;
}

// A select for each feature of a profile that the model knows; "not said" is unknown
function showProfile(features) {
  const option = value => make('option', {value}, String(value));
  const label = name => name.replaceAll('_', ' ').replace(/^./, first => first.toUpperCase());
  const select = (name, values) => make('select', {name}, make('option', {value: ''}, 'not said'), ...values.map(option));
  const number = name => make('input', {name, type: 'number', step: 'any', placeholder: 'not said'});
  $('profile').replaceChildren(...Object.entries(features).map(([name, values]) =>
    make('label', {}, `${label(name)} `, values ? select(name, values) : number(name))));
  $('profile').hidden = !$('profile').children.length;
}

// What is known of the user: ratings, and a profile if anything is said
function given() {
  const said = [...$('profile').querySelectorAll('select, input')].filter(({value}) => value).map(({name, value}) => [name, value]);
  const profile = said.length ? Object.fromEntries(said) : null;
  return {ratings: [...ratings.values()].map(({item, rating}) => ({item, rating})), profile};
}

// The filters that are sound; of others the page says what is wrong, and does without them
function filters() {
  const wrong = [];
  const whole = (id, min, max, otherwise, name, example) => {
    const {value, validity} = $(id), number = Number(value), sound = !validity.badInput && Number.isInteger(number) && number >= min && number <= max;
    const empty = value === '' && !validity.badInput;
    if (!sound && !empty) wrong.push(`“${name}” must be ${example}, so it is ignored.`);
    $(id).setAttribute('aria-invalid', !sound && !empty);
    return sound && !empty ? number : otherwise;
  };
  const from = whole('from', 1000, 9999, 0, 'From year', 'a year such as 1990');
  const to = whole('to', 1000, 9999, 9999, 'To year', 'a year such as 1999');
  const least = whole('min-ratings', 0, 1e6, 0, 'At least … ratings', 'a whole number from 0 to 1,000,000');
  if (from > to) wrong.push(`No year is from ${from} to ${to}.`);
  $('wrong').textContent = wrong.join(' ');
  const years = from || to < 9999 ? [from, to] : null, genre = $('genre').value;
  return {genres: genre ? [genre] : null, years, min_ratings: least};
}

const recommend = () => attempt('recommend', async () => {
  const asked = filters();
  $('linked').hidden = true;
  if (!ratings.size) return showList([]);
  const {items} = await send('recommend', 'recommend', {...given(), k: listLength, by: order(), ...asked, exclude: [...hidden].slice(-MAX_HIDDEN)});
  showList(items);
  $('news').textContent = items.length ? `${things(items.length)} in your list, first ${plain(items[0])}` : '';
});
const recommendSoon = debounce(recommend);

// The numbers of a film, as far as the model has them: expected rating, chance of a click, chance to come next
function answersOf({expected, click, next}) {
  const answers = [];
  if (expected !== undefined) answers.push([expected.toFixed(2), star(0, 1), unseen(` of ${scale.at(-1)} expected`)]);
  if (click !== undefined) answers.push([chance(click), unseen(' chance that you like it')]);
  if (next !== undefined) answers.push([chance(next), answers.length ? ' next' : '', unseen(' chance that it comes next')]);
  return answers.map(parts => make('span', {className: 'answer'}, ...parts));
}

function entry(film) {
  const toggle = () => { open = open === film.item ? null : film.item; unfold(); };
  const button = make('button', {type: 'button', className: 'film', onclick: toggle}, make('span', {className: 'name'}, plain(film)),
    make('span', {className: 'note'}, ...badge(film), note(film)), make('span', {className: 'answers'}, ...answersOf(film)));
  button.dataset.item = film.item;
  const hide = make('button', {type: 'button', className: 'remove', title: 'Not interested', onclick: () => hideFilm(film)},
    '×', unseen(`Not interested in ${plain(film)}`));
  return Object.assign(make('li', {}, make('h3', {}, button), hide), {film});
}

function hideFilm(film) {
  const row = [...$('list').children].find(one => one.film.item === film.item);
  const next = row.nextElementSibling ?? row.previousElementSibling;
  (next?.querySelector('.film') ?? $('list-title')).focus();
  row.remove();
  setHidden(() => hidden.add(film.item));
  offerUndo(`${plain(film)} is hidden.`, $('list'), () => setHidden(() => hidden.delete(film.item)));
}

// Change which items are of no interest, among those that any tab has stored
function setHidden(change) {
  readHidden();
  change();
  write(`hidden ${storage}`, [...hidden].slice(-MAX_HIDDEN));
  showHidden();
  recommend();
}

function readHidden() {
  const kept = read(`hidden ${storage}`);
  hidden.clear();
  if (Array.isArray(kept)) kept.filter(item => isItem(item) && !strangers.has(item)).forEach(item => hidden.add(item));
}

function showHidden() {
  $('unhide').hidden = !hidden.size;
  $('unhide').textContent = `Show ${things(hidden.size)} of no interest again`;
}

function hint({expected, next}) {
  const numbers = expected === undefined || next === undefined ? '' : ' The star is the rating that is expected of you, the percentage the chance that it comes next.';
  return `Choose one to see why it is here.${numbers}`;
}

function showList(items) {
  const focused = document.activeElement.closest('#list button.film')?.dataset.item;
  $('list').replaceChildren(...items.map(entry));
  if (!items.some(({item}) => item === open)) open = null;
  $('hint').textContent = !ratings.size ? `Your list appears here when you have ${rated() ? 'rated' : 'chosen'} one of the ${many}.`
    : items.length ? hint(items[0]) : `No ${one} matches these filters.`;
  $('link').hidden = !ratings.size;
  $('more').hidden = items.length < listLength || listLength >= MAX_ITEMS;
  unfold();
  if (focused) [...$('list').querySelectorAll('.film')].find(button => button.dataset.item === focused)?.focus();
}

// --- Why

const panel = make('div', {className: 'why'});

function unfold() {
  cancel('explain');
  panel.remove();
  for (const row of $('list').children) {
    const here = row.film.item === open;
    row.querySelector('.film').setAttribute('aria-expanded', here);
    if (here) { row.append(panel); explain(row.film); }
  }
}

const explain = film => attempt('explain', async () => {
  if (panel.film?.item !== film.item) panel.replaceChildren(...probabilities(film));
  panel.film = film;
  const {by, items} = await send('explain', 'explain', {...given(), item: film.item, k: STEP, by: order()});
  panel.replaceChildren(...because(items), ...reasons(items, by), ...probabilities(film),
    make('button', {type: 'button', onclick: () => pick(film)}, rated() ? 'I know it: rate it' : 'I know it: choose it'));
});

// The two ratings that speak most for a film
function because(items) {
  const given = items.filter(({effect}) => effect > 0).slice(0, 2).map(film => rated() ? `${plain(film)} ${film.rating}` : plain(film));
  return given.length ? [make('p', {className: 'because'}, `Because you ${rated() ? 'rated' : 'chose'} ${given.join(' and ')}.`)] : [];
}

function reasons(items, by) {
  const reach = Math.max(...items.map(({effect}) => Math.abs(effect)), 1e-9), stars = by === 'rating';
  const digits = stars ? 2 : Math.min(Math.max(1 - Math.floor(Math.log10(100 * reach)), 1), 4);  // chances may be small
  const signed = effect => (effect < 0 ? '−' : '+') + (stars ? Math.abs(effect) : 100 * Math.abs(effect)).toFixed(digits) + (stars ? '' : '%');
  return [make('h4', {}, rated() ? 'What your ratings do to it' : 'What your choices do to it'),
    make('p', {className: 'note'}, `How far each moves the ${ORDERS[by]?.[1] ?? by}: up to the right, down to the left.`),
    make('ul', {className: 'effects'}, ...items.map(film => {
      const bar = make('span', {className: film.effect < 0 ? 'bar down' : 'bar up'});
      bar.style.width = `${50 * Math.abs(film.effect) / reach}%`;
      return make('li', {}, named(film, film.rating === undefined ? '' : `you gave ${film.rating}`), make('span', {className: 'track'}, bar),
        make('span', {className: 'number'}, signed(film.effect)));
    }))];
}

function probabilities({distribution}) {
  if (!distribution) return [];
  const highest = Math.max(...distribution);
  return [make('h4', {}, 'How likely each of your ratings is, in percent'), make('ol', {className: 'probabilities'}, ...distribution.map((share, n) => {
    const bar = make('span', {className: 'bar'});
    bar.style.height = `${100 * share / highest}%`;
    return make('li', {}, make('span', {className: 'value'}, String(scale[n])), make('span', {className: 'track'}, bar),
      make('span', {className: 'number'}, String(percent(share))));
  }))];
}

// --- Search: a combobox with a listbox

const find = $('find'), options = $('options');
let found = [], active = -1;

const search = () => attempt('search', async () => {
  const query = find.value.trim();
  if (!query || document.activeElement !== find) return showFound([]);
  const {items, guessed} = await send('search', `items?${new URLSearchParams({query, limit: 8})}`);
  showFound(items);
  const none = `No ${one} ${items.length ? 'is called' : 'matches'} “${query}”.`;
  $('found').textContent = !items.length ? none : guessed ? `${none} Did you mean one of these?` : `${things(items.length)} found`;
  $('found').classList.toggle('unseen', items.length > 0 && !guessed);
});
const searchSoon = debounce(search);

function showFound(items) {
  found = document.activeElement === find ? items : [];  // the focus may have moved during the request
  options.replaceChildren(...found.map((film, n) =>
    make('li', {id: `option-${n}`, role: 'option', onclick: () => choose(film)}, named(film, note(film)))));
  options.hidden = !found.length;
  find.setAttribute('aria-expanded', found.length > 0);
  $('found').textContent = '';
  activate(-1);
}

function activate(n) {
  active = n;
  [...options.children].forEach((option, k) => option.setAttribute('aria-selected', k === n));
  if (n < 0) find.removeAttribute('aria-activedescendant'); else find.setAttribute('aria-activedescendant', `option-${n}`);
  options.children[n]?.scrollIntoView({block: 'nearest'});
}

function choose(film) {
  find.value = '';
  showFound([]);
  pick(film);
}

find.oninput = () => { cancel('search'); searchSoon(); };
find.onblur = () => { cancel('search'); showFound([]); };
options.onmousedown = event => event.preventDefault();  // keep the focus in the field
find.onkeydown = event => {
  if (event.isComposing) return;
  const down = event.key === 'ArrowDown', n = found.length;
  if (down || event.key === 'ArrowUp') {
    event.preventDefault();
    if (n) activate(down ? (active + 1) % n : (Math.max(active, 0) + n - 1) % n); else search();
  } else if (event.key === 'Enter' && n) choose(found[Math.max(active, 0)]);
  else if (event.key === 'Escape') {
    if (!n) find.value = '';
    showFound([]);
  }
};

// --- The rest

for (const form of [$('filters'), $('profile')]) {
  form.oninput = form.onchange = () => { cancel('recommend'); recommendSoon(); };
  form.onsubmit = event => event.preventDefault();
}
$('more').onclick = () => { listLength = Math.min(listLength + STEP, MAX_ITEMS); recommend(); };
$('more-films').onclick = () => addStarters(STARTERS);
$('again').onclick = () => {
  const back = removed;
  removed = [...ratings.values()];
  ratings.clear();
  back.forEach(film => ratings.set(film.item, film));
  listLength = STEP;
  $('filters').reset();
  $('profile').reset();
  save(pairs => { pairs.clear(); ratings.forEach(({item, rating}) => pairs.set(item, rating)); });
  $('undone').hidden = true;
  if (!ratings.size) showList([]);
  changed();
  showFilms();
};
$('unhide').onclick = () => { $('list-title').focus(); setHidden(() => hidden.clear()); };

const FIELDS = {genre: 'genre', from: 'from', to: 'to', least: 'min-ratings'};  // filters in an address

$('link').onclick = () => {
  const pairs = [...ratings.values()].map(({item, rating}) => [item, rating]);
  const parts = new URLSearchParams({rated: JSON.stringify(pairs), by: order()});
  for (const [name, id] of Object.entries(FIELDS)) parts.set(name, $(id).value);
  $('linked').hidden = false;
  $('address').value = `${location.origin}${location.pathname}#${parts}`;
  $('address').focus();
  $('address').select();
};

// Take order and filters from the address
function useLink() {
  for (const [name, id] of Object.entries(FIELDS)) if (link.has(name)) $(id).value = link.get(name);
  const chosen = [...document.querySelectorAll('#order input')].find(({value}) => value === link.get('by'));
  if (chosen) chosen.checked = true;
  $('shared').hidden = !link.has('rated');
}

function showWords() {
  const upper = text => text.replace(/^./, first => first.toUpperCase());
  const words = {one, many, Many: upper(many)};
  const phrase = text => rated() ? text : text.replace('Rate a few', 'Choose a few').replace('to rate', 'to choose');
  for (const node of document.querySelectorAll('[data-words]')) node.textContent = phrase(node.dataset.words).replace(/\{(\w+)\}/g, (_, name) => words[name]);
  document.title = document.querySelector('h1').textContent;
}

attempt('start', async () => {
  const health = await send('start', 'health');
  [scale, orders, storage] = [health.rating_values, health.ranked_by, `ratings of ${health.data}`];
  [one, many] = health.item_word;
  showWords();
  $('min-ratings').value = health.min_ratings;
  if (!$('order').querySelector('input')) showOrders();
  if (!$('profile').querySelector('select, input')) showProfile(health.profile);
  $('genre').parentElement.hidden = !health.genres.length;
  $('genre').replaceChildren(make('option', {value: ''}, 'All'), ...health.genres.map(genre => make('option', {value: genre}, genre)));
  $('about').textContent = `${health.data}: ${things(health.items)}, ${count(health.users, 'person', 'people')}.`;
  popular = (await send('start', `items?limit=${MAX_ITEMS}`)).items;
  for (const film of await known(saved())) ratings.set(film.item, film);
  readHidden();
  const familiar = await known([...hidden].map(item => [item, 0]));
  hidden.clear();
  familiar.forEach(({item}) => hidden.add(item));
  useLink();
  showHidden();
  showFilms();
  showCount();
  $('main').inert = false;
  await recommend();
});
