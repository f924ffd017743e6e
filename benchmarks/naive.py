"The naive route from files to windows, as in many public notebooks; nbs/01_data.ipynb shows the same and says why it is slow"
import numpy as np
import pandas as pd

def read_table(path, names):
    "Read a MovieLens file: the separator '::' leaves only the slow parser of pandas"
    return pd.read_csv(path, sep='::', engine='python', names=names, encoding='latin-1')

def cut(values, length, step):
    "Cut a list into windows of `length`, one every `step`, and one more that ends at the end"
    if len(values) < length: return []
    starts = list(range(0, len(values) - length + 1, step))
    if starts[-1] + length < len(values): starts.append(len(values) - length)
    return [values[start:start + length] for start in starts]

def naive_windows(folder, length, step):
    "Read windows of `length` ratings of one user each, as arrays of raw ids (W,), (W, length) and ratings (W, length)"
    ratings = read_table(folder/'ratings.dat', ['user', 'item', 'rating', 'timestamp'])
    users = read_table(folder/'users.dat', ['user', 'sex', 'age', 'occupation', 'zip'])
    films = read_table(folder/'movies.dat', ['item', 'title', 'genres'])
    for genre in sorted({genre for text in films.genres for genre in text.split('|')}):
        films[genre] = films.genres.apply(lambda text: int(genre in text.split('|')))
    columns = ['item', 'rating', 'timestamp']
    lists = ratings.sort_values('timestamp', kind='stable').groupby('user')[columns].agg(list).reset_index()
    for column in columns: lists[column] = lists[column].apply(cut, length=length, step=step)
    table = lists.explode(columns).dropna().merge(users, on='user')
    return table.user.to_numpy(), np.array(table.item.tolist()), np.array(table.rating.tolist())
