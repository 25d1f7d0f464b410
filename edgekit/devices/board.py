"""The board's side of an SSH device: small POSIX sh scripts over one folder, and what they answer. Starts no process.

    store/SHA256           a file by its digest, complete
    sets/DIGEST/NAME       hard links to them (copies where links fail) by the names they go by
    parts/SHA256.OWNER     what has arrived so far of a file on its way
    jobs/OWNER/            a connection's own folder: `pids/` of its processes, its scratch folders, and the digests of what it
                           is lent (`lent`), or has asked for (`claimed`)

- needed there: sh, cat, chmod, cp, df, kill, ln, ls, mkdir, mv, readlink, rm, rmdir, sha256sum, sleep, uname;
- an owner is a connection. Every process of its has jobs/OWNER as working directory, which is how a process is told from
  another one that was given its number later; an owner lives as long as the script that `enter`ed;
- an owner never touches what a living one has; what a dead one left is ended and removed, its partial uploads are taken over.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

GONE = 125  # this connection's folder is not there any more
CANNOT_EXECUTE, NOT_FOUND = 126, 127  # sh's own

# size FILE, links FILE: by `ls`, since some `wc -c` read the file. drop SHA256: a file of the store that nothing else has goes.
_START = """
LC_ALL=C
export LC_ALL
umask 077
size() {
set -- $(ls -ln "$1")
echo "$5"
}
links() {
set -- $(ls -ln "$1" 2>/dev/null)
echo "$2"
}
drop() {
[ "$(links "$f/store/$1")" != 1 ] || rm -f "$f/store/$1"
}
"""

# alive PID OWNER, end PID OWNER, end_all FILE OWNER, owned OWNER, sweep OWNER: with the folder in $f; they use $e, $i, $k, $l, $m
# and $n. What was lent goes. What was claimed has come, but not all that was to come with it: it goes back to what is on its way.
_PROCESSES = """
alive() { [ "$(readlink "/proc/$1/cwd" 2>/dev/null)" = "$f/jobs/$2" ]; }
end() {
i=0
while alive "$1" "$2" && [ $i -lt 60 ]; do
kill -9 "$1" 2>/dev/null
i=$((i+1))
[ $i -lt 50 ] || sleep 1
done
}
end_all() {
[ ! -f "$1" ] || while read -r n; do
end "$n" "$2"
done < "$1"
}
owned() { read -r n 2>/dev/null < "$f/jobs/$1/pids/here" && alive "$n" "$1"; }
sweep() {
for k in "$f/jobs/$1/pids/"*; do
end_all "$k" "$1"
done
l=$(cat "$f/jobs/$1/lent" 2>/dev/null)
m=$(cat "$f/jobs/$1/claimed" 2>/dev/null)
rm -rf "$f/jobs/$1"
for e in $l; do
drop "$e"
done
for e in $m; do
[ "$(links "$f/store/$e")" != 1 ] || { chmod 700 "$f/store/$e" && mv -f "$f/store/$e" "$f/parts/$e.$1"; }
done
}
"""

# FOLDER OWNER EARLIER-OWNERS...: says what the board is, stays until the link ends, then takes away what the owner left.
ENTER = """
refuse() {
echo "refused $1"
exit 3
}
trap '' HUP PIPE
f=$1
t=$2
shift 2
[ -n "$f" ] || f=$HOME/.edgekit
[ ! -L "$f" ] || refuse link
[ -d "$f" ] || mkdir -p "$f" || refuse make
[ -O "$f" ] || refuse owner
cd "$f" || refuse make
f=$(pwd -P)
for x in * .[!.]*; do
case $x in store|sets|parts|jobs) continue;; esac
[ ! -e "$x" ] || refuse foreign
done
chmod 700 . || refuse make
mkdir -p store sets parts "jobs/.$t/pids" || refuse write
echo $$ > "jobs/.$t/pids/here" || refuse write
cd "jobs/.$t" && mv "../.$t" "../$t" || refuse write
for o; do
sweep "$o"
done
for d in "$f"/jobs/*; do
o=${d##*/}
owned "$o" || sweep "$o"
done
echo "arch $(uname -m)"
echo "folder $f"
df -Pk .
echo entered
IFS= read -r x
rm -f pids/here
sweep "$t"
cd "$f" && rmdir jobs parts sets store 2>/dev/null
"""

_INSIDE = f"""
f=$1
t=$2
shift 2
cd "$f/jobs/$t" || exit {GONE}
"""

# SHA256...: `have SHA256`, or `part SHA256 BYTES` once nobody writes there any more.
QUERY = f"""
cd "$f" && mkdir -p store sets parts || exit {GONE}
for s; do
if [ -f "store/$s" ]; then
h=$(sha256sum "store/$s")
if [ "${{h%% *}}" = "$s" ]; then
echo "have $s"
continue
fi
rm -f "store/$s"
fi
end_all "jobs/$t/pids/put.$s" "$t"
for p in "parts/$s".*; do
o=${{p##*.}}
if [ "$o" = "$t" ] || [ ! -f "$p" ] || owned "$o"; then continue; fi
sweep "$o"
if [ -f "parts/$s.$t" ]; then rm -f "$p"; else mv "$p" "parts/$s.$t"; fi
done
n=0
[ ! -f "parts/$s.$t" ] || n=$(size "parts/$s.$t")
echo part "$s" $n
done
df -Pk .
"""

# SHA256 BYTES, and the rest of the file on stdin: `stored`, `short` of its size, `differs`, or `unwritten` with cat's words.
PUT = f"""
s=$1
p=$f/parts/$s.$t
k=pids/put.$s
echo $$ > "$k" || exit {GONE}
sh -c 'echo $$ >> "$1" && exec cat >> "$2"' sh "$k" "$p"
c=$?
rm -f "$k"
if [ $c -gt 128 ]; then
echo short
exit
fi
if [ $c -ne 0 ]; then
rm -f "$p"
echo unwritten
exit
fi
n=$(size "$p")
if [ "$n" -lt "$2" ]; then
echo short
exit
fi
h=$(sha256sum < "$p")
if [ "$n" -eq "$2" ] && [ "${{h%% *}}" = "$s" ] && chmod 500 "$p" && mv -f "$p" "$f/store/$s"; then
echo stored
else
rm -f "$p"
echo differs
fi
"""

# SHA256: for each line on stdin, `ls -ln` of what has arrived so far.
METER = """
while read -r x; do
ls -ln "$f/parts/$1.$t" || echo gone
done
"""

# `taken` when a file is no longer in the store: another edgekit lent it, and was the last that had it.
_STILL_THERE = """
if [ ! -f "$f/store/$1" ]; then
echo taken
exit
fi
"""

# DIGEST SHA256 NAME SHA256 NAME...: the set's folder has every name. Another edgekit may link the same one at the same time:
# GNU mv refuses to rename one link of a file to another, and then the name is there.
GATHER = f"""
d=$f/sets/$1
x=$d/.$t
shift
mkdir -p "$d" || exit {GONE}
while [ $# -gt 1 ]; do
{_STILL_THERE}
if [ "$f/store/$1" -ef "$d/$2" ]; then
shift 2
continue
fi
rm -f "$x"
if ! ln "$f/store/$1" "$x" 2>/dev/null && ! cp "$f/store/$1" "$x"; then
rm -f "$x"
exit 1
fi
mv -f "$x" "$d/$2" || [ "$f/store/$1" -ef "$d/$2" ] || exit 1
rm -f "$x"
shift 2
done
"""

# SHA256...: what this connection is about to send, to be lent.
CLAIM = f"""
for s; do
echo "$s" >> claimed || exit {GONE}
done
"""

# NAME SHA256 NAME SHA256 NAME...: a folder of this connection's own has every name. The file `lent` lists what goes with it.
LEND = f"""
rm -rf "$1"
mkdir "$1" || exit {GONE}
x=$1
shift
while [ $# -gt 1 ]; do
{_STILL_THERE}
echo "$1" >> lent
ln "$f/store/$1" "$x/$2" 2>/dev/null || cp "$f/store/$1" "$x/$2" || exit 1
shift 2
done
rm -f claimed
"""

# FILE LIMIT: `absent`, `large BYTES`, or `file BYTES SHA256` and the bytes.
GET = """
if [ ! -f "$1" ]; then
echo absent
exit
fi
n=$(size "$1")
if [ "$n" -gt "$2" ]; then
echo large $n
exit
fi
h=$(sha256sum < "$1")
echo file $n "${h%% *}"
exec cat < "$1"
"""

# LABEL PROGRAM ARGUMENTS...: the program's own exit code, 128 and the number when a signal killed it.
RUN = f"""
k=pids/$1
shift
echo $$ > "$k" || exit {GONE}
sh -c 'echo $$ >> "$1" && shift && exec "$@"' sh "$k" "$@"
c=$?
rm -f "$k"
exit $c
"""

# LABEL: the program is gone when this ends.
STOP = 'end_all "pids/$1" "$t"'

# LABEL SECONDS: the program, the last process of its label, is told to end and has so long for it.
ASK = """
n=0
[ ! -f "pids/$1" ] || while read -r x; do
n=$x
done < "pids/$1"
i=0
if alive "$n" "$t"; then
kill "$n"
fi
while alive "$n" "$t" && [ $i -lt "$2" ]; do
i=$((i+1))
sleep 1
done
"""

MAKE_SCRATCH = f'mkdir "$1" || exit {GONE}'

# NAME SHA256...: the folder goes, and so do those files of the store that nothing else on the board has a link to.
REMOVE_SCRATCH = """
rm -rf "$1"
shift
for s; do
drop "$s"
done
"""

# `busy` when another connection lives.
CLEAN = """
for d in "$f"/jobs/*; do
o=${d##*/}
[ "$o" != "$t" ] || continue
if owned "$o"; then
echo busy
exit
fi
sweep "$o"
done
rm -rf "$f"/store/* "$f"/sets/* "$f"/parts/*
rm -rf "$f"/jobs/.[!.]*
"""


@dataclass(frozen=True)
class Board:
    """What `ENTER` said: the machine's name for itself, the folder without links in its path, and what is free there."""

    machine: str
    folder: str
    free_bytes: int | None


def entering(marker: str, folder: str, owner: str, earlier: Sequence[str]) -> str:
    """The script that opens a connection, in one line."""
    return _line(marker, _START + _PROCESSES + ENTER, [folder, owner, *earlier])


def inside(marker: str, script: str, folder: str, owner: str, arguments: Sequence[str]) -> str:
    """A script of this module in one line, for an `owner` who has entered."""
    processes = _PROCESSES if script in (QUERY, STOP, ASK, CLEAN) else ""
    return _line(marker, _START + processes + _INSIDE + script, [folder, owner, *arguments])


def _line(marker: str, script: str, arguments: Sequence[str]) -> str:
    """One line for `read` and `eval`; a line's end within an argument stands as `$nl`."""
    words = " ".join(shlex.quote(word).replace("\n", "'\"$nl\"'") for word in arguments)
    return f"echo {marker}; nl=$(printf '\\nx'); nl=${{nl%x}}; set -- {words}; {_joined(script)}"


def _joined(script: str) -> str:
    """A script's lines as one."""
    lines = [line for line in script.splitlines() if line]
    return "".join(line + (" " if line.endswith(("{", "do", "then", "else")) else "; ") for line in lines)


def free_bytes(lines: Sequence[str]) -> int | None:
    """What `df -Pk` says is free: the fourth field of its last line; None when it says nothing of the kind."""
    fields = lines[-1].split() if lines else []
    return int(fields[3]) * 1024 if len(fields) >= 6 and fields[3].isdecimal() else None


def parse_board(lines: Sequence[str]) -> Board | None:
    """`ENTER`'s lines, None when they are something else."""
    if len(lines) < 2 or not lines[0].startswith("arch ") or not lines[1].startswith("folder /"):
        return None
    return Board(lines[0].removeprefix("arch "), lines[1].removeprefix("folder "), free_bytes(lines[2:]))


def metered(line: bytes) -> int:
    """The size in a line of `ls -ln`, its fifth field; 0 when there is none."""
    fields = line.split(maxsplit=5)
    return int(fields[4]) if len(fields) == 6 and fields[4].isdigit() and len(fields[4]) < 19 else 0


@dataclass(frozen=True)
class Lack:
    """What a query found missing: bytes already there by digest. `free_bytes` is the room left, None when not known."""

    offsets: dict[str, int]
    free_bytes: int | None


def parse_query(stdout: bytes, asked: Sequence[str]) -> Lack | None:
    """`QUERY`'s lines, None when they do not answer each of `asked` in its turn."""
    lines = stdout.decode(errors="replace").splitlines()
    offsets: dict[str, int] = {}
    for digest, line in zip(asked, lines, strict=False):
        match line.split(" "):
            case ["have", found] if found == digest:
                continue
            case ["part", found, size] if found == digest and size.isdecimal() and len(size) < 19:
                offsets[digest] = int(size)
            case _:
                return None
    return Lack(offsets, free_bytes(lines[len(asked) :])) if len(lines) >= len(asked) else None
