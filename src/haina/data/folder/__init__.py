"""A folder of clients: arrays that are mapped into memory and never read whole, so that a million registered clients cost what a cohort costs.

    x.npy         [N, ...] features: floats, or integers (tokens, pixels)
    y.npy         [N] class numbers from 0 (integers), or values (floats)
    offsets.npy   int64 [clients + 1]: client k owns rows offsets[k] to offsets[k + 1], the last not included
    test_x.npy, test_y.npy, held_x.npy, held_y.npy    rows that no client has, and rows of the server; not needed
    classes.json  names of the classes, in the order of their numbers; without it, 0 to the largest number in y.npy
    names.json    names of the clients; without it, client-000, client-001, ... (`haina.data.names`)

The trap: do not change a file that is mapped. Cut short, it kills the process that reads it (SIGBUS); changed, it changes a run.
"""

from haina.data.folder.reading import read as read
from haina.data.folder.writing import stream as stream
from haina.data.folder.writing import write as write
