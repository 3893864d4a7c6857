"""A phone book kept in a checkpoint: every program on every node sees the same entries.

python -m ckpt_client.asp examples/phonebook.py add Ada 1815
python -m ckpt_client.asp examples/phonebook.py find Ada
python -m ckpt_client.asp examples/phonebook.py remove Ada
python -m ckpt_client.asp examples/phonebook.py list
"""

import sys

import aspCheckpoint
from asp import *


def find(book, name):
    try:
        number = book.Read([name])
    except aspCheckpoint.CheckpointError as e:
        if e.aspErrorCode[0] == SA_AIS_ERR_NOT_EXIST:
            print("%s is not in the book" % name)
            return 1
        raise
    print("%s: %s" % (name, number.decode()))
    return 0


def main(args):
    # The positions are ASP's: name, rows, bytes of a row, bytes of a key, flags, retention in milliseconds.
    book = aspCheckpoint.Table("phonebook", 1000, 64, 64, SA_CKPT_WR_ALL_REPLICAS, SA_TIME_MAX)
    command = args[0] if args else "list"
    if command == "add":
        book.Write(args[1], args[2])  # creates the entry, or sets it to exactly this
    elif command == "remove":
        book.Delete(args[1])  # no error if it is missing
    elif command == "find":
        return find(book, args[1])
    elif command == "list":
        for name, number in book.items():
            print("%s: %s" % (name.decode(), number.decode()))
    else:
        print("add NAME NUMBER | find NAME | remove NAME | list")
        return 2
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except aspCheckpoint.CheckpointError as e:
        print(e)
        sys.exit(1)
