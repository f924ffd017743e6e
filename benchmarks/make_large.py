"""Make a set of any size with the shape and the files of MovieLens-32M: python benchmarks/make_large.py some/folder --ratings 32e6

Nobody made these ratings, and the films do not exist. At full size there are 200,948 users with 20 ratings or more, 87,585 films and 32,000,204
ratings; smaller sets have users and films in proportion. A few users rate thousands of films and a few films are rated by most. The same
size and seed give the same files. Memory does not grow with the size: users are made and written a block at a time.
"""
import argparse
import sys
from pathlib import Path

import numpy as np

from bst_nbdev.core import BSTError, ConfigError, atomic_path, check_seed, progress

RATINGS, USERS, FILMS = 32_000_204, 200_948, 87_585  # of ML-32M
LEAST, BLOCK = 20, 500_000  # ratings of a user at least; ratings of a block at most (but for one user)
FIRST_DAY, LAST_DAY = 789_652_009, 1_697_164_147  # of ML-32M, in seconds since 1970
FIRST = 'Amber Broken Clockwork Distant Emerald Forgotten Gilded Hollow Ivory Jagged Kindred Lonely Midnight Northern Open Paper Quiet'.split()
SECOND = 'Archive Bridge Cathedral Desert Engine Frontier Garden Harbour Island Journey Kingdom Letter Machine Night Ocean Promise River'.split()
GENRES = ('Action Adventure Animation Children Comedy Crime Documentary Drama Fantasy Film-Noir Horror IMAX Musical Mystery Romance Sci-Fi '
          'Thriller War Western').split()

def activity(random, users, ratings, most):
    "Ratings of each user: LEAST or more, long-tailed, `ratings` in all (int64, [users])"
    weights = np.minimum(random.lognormal(0, 1.25, users), np.exp(1.25 * 4))
    extra = np.floor(weights * (ratings - LEAST * users) / weights.sum()).astype(np.int64)
    counts = np.minimum(LEAST + extra, most)
    while short := ratings - counts.sum():                     # what rounding and the upper limit left over
        free = np.flatnonzero(counts < most)
        counts[random.permutation(free)[:short]] += 1
    return counts

def popularity(random, films):
    "Chance of each film to be rated, cumulated: like Zipf's law, with a flatter top (float64, [films])"
    return np.cumsum(random.permutation(1 / (np.arange(films) + 40.)))

def choose(random, counts, chance):
    "Film (0, 1, …) of each rating, ascending and none twice for a user; users one after the other (int64)"
    films, user = len(chance), np.arange(len(counts))
    pairs, missing = np.zeros(0, np.int64), counts
    while missing.any():
        who = np.repeat(user, missing + (missing > 0))
        film = np.minimum(np.searchsorted(chance, random.random(len(who)) * chance[-1], side='right'), films - 1)
        new = np.setdiff1d(np.unique(who * films + film), pairs, assume_unique=True)
        new = random.permutation(new)                          # so that what is too many goes by chance
        new = new[np.argsort(new // films, kind='stable')]
        found = np.bincount(new // films, minlength=len(counts))
        place = np.arange(len(new)) - np.repeat(np.cumsum(found) - found, found)
        new = new[place < missing[new // films]]
        missing = missing - np.bincount(new // films, minlength=len(counts))
        pairs = np.sort(np.concatenate([pairs, new]))
    return pairs % films

def rate(random, counts, film, quality):
    "Half stars (1 to 10) and times of each rating"
    users = len(counts)
    stars = 3.5 + np.repeat(.45 * random.standard_normal(users), counts) + quality[film] + .85 * random.standard_normal(len(film))
    span = (LAST_DAY - FIRST_DAY) * np.minimum(random.exponential(.05, users), 1)
    begin = FIRST_DAY + random.random(users) * (LAST_DAY - FIRST_DAY - span)
    time = np.repeat(begin, counts) + random.random(len(film)) ** 3 * np.repeat(span, counts)
    return np.clip(np.rint(2 * stars), 1, 10).astype(np.int64), time.astype(np.int64)

def digits(numbers):
    "Whole numbers as text of equal width, with zeros in front (uint8, [n, width])"
    width = len(str(int(numbers.max())))
    found = np.empty((len(numbers), width), np.uint8)
    for place in range(width - 1, -1, -1):
        numbers, found[:, place] = np.divmod(numbers, 10)
    return found

def lines(user, film, halves, time):
    "Lines 'user,film,stars,time' as bytes, without a loop over them"
    parts = []
    for numbers in user, film, None, time:
        if numbers is None: text = np.stack([halves // 2, np.full_like(halves, ord('.') - ord('0')), halves % 2 * 5], 1).astype(np.uint8)
        else: text = digits(numbers)
        kept = np.ones(text.shape, bool) if numbers is None else np.maximum.accumulate(text, 1) > 0   # no zeros in front
        parts += [(text + ord('0'), kept), (np.full((len(film), 1), ord(',')), np.ones((len(film), 1), bool))]
    parts[-1] = (np.full((len(film), 1), ord('\n')), parts[-1][1])
    text, kept = (np.concatenate(columns, 1) for columns in zip(*parts))
    return text[kept].astype(np.uint8).tobytes()

def films_csv(random, ids):
    "Write the text of movies.csv: titles with a comma in quotes, a year, genres between bars"
    first, second, year = (random.integers(0, n, len(ids)) for n in (len(FIRST), len(SECOND), 100))
    many, article = random.integers(0, 4, len(ids)), random.random(len(ids)) < .3
    text = ['movieId,title,genres\n']
    for n, number in enumerate(ids):
        title = f"{FIRST[first[n]]} {SECOND[second[n]]} {n + 1}{', The' if article[n] else ''} ({1924 + year[n]})"
        genres = '|'.join(sorted(random.choice(GENRES, many[n], replace=False))) or '(no genres listed)'
        text.append(f'"{title}",{genres}\n' if article[n] else f'{title},{genres}\n')
        text[-1] = f'{number},{text[-1]}'
    return ''.join(text)

def make_large(folder, ratings=RATINGS, seed=0):
    "Write ratings.csv and movies.csv; the folder appears whole or not at all"
    users, films = (max(round(n * ratings / RATINGS), least) for n, least in ((USERS, 2), (FILMS, 2000)))  # films enough for the keenest user
    if ratings < LEAST * users: raise ConfigError(f'{ratings:,} ratings are too few: ask for {LEAST * users} or more')
    random = np.random.default_rng(check_seed(seed))
    counts, chance = activity(random, users, ratings, films // 2), popularity(random, films)
    quality, ids = .45 * random.standard_normal(films), np.sort(random.choice(np.arange(1, 3 * films), films, replace=False))
    ends = np.cumsum(counts)
    cuts = np.unique(np.searchsorted(ends, np.arange(BLOCK, ratings, BLOCK), side='right'))
    blocks = np.split(np.arange(users), cuts[(cuts > 0) & (cuts < users)])
    with atomic_path(folder) as scratch:
        scratch.mkdir()
        (scratch/'movies.csv').write_text(films_csv(random, ids), encoding='utf-8')
        with open(scratch/'ratings.csv', 'wb') as file:
            file.write(b'userId,movieId,rating,timestamp\n')
            for block in progress(blocks, 'ratings', unit='block'):
                random = np.random.default_rng([seed, int(block[0])])
                film = choose(random, counts[block], chance)
                file.write(lines(np.repeat(block + 1, counts[block]), ids[film], *rate(random, counts[block], film, quality)))
    return Path(folder)

def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', type=Path, help='where the two files go; replaced if it is there')
    parser.add_argument('--ratings', type=float, default=RATINGS, help='how many, such as 1e6 (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='another number gives another set (default: %(default)s)')
    a = parser.parse_args(arguments)
    try: folder = make_large(a.folder, int(a.ratings), a.seed)
    except BSTError as error: sys.exit(f'make_large: {error}')
    print(f"{int(a.ratings):,} ratings, {sum(p.stat().st_size for p in folder.iterdir()) / 1e6:,.0f} MB: {folder}\n\nnext: bst_prepare --data {folder}")

if __name__ == '__main__': main()
