#!/usr/bin/env bash
# All tests, then all benches, that need a GPU, section by section: bench/gpu.sh [SECTION...]
#
# A section that went through is noted in bench/results/.gpu-done and left out the next time, unless it is named. Each has a time
# limit, and all end within 8 minutes; what has not begun by then waits for the next call. Measurements go to
# bench/results/<machine>.jsonl. With OUT set, these, the notes and the log are copied to that folder as well.
#
# Needs torch, triton and numpy for python3 (or the one that PYTHON names; .venv's, where there is one). A section that needs
# more than is installed says so and is left out. BENCH_COMMIT: of a copy without git.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

TOTAL_S=465
TESTS=$(cd tests/kernels && ls test_*.py | sed 's/\.py$//')
OPS="arcface_head arcface_ce dkd proto_kd"
SECTIONS=$(echo $TESTS $OPS train latency)
NOTES=bench/results/.gpu-done

fail() { echo "bench/gpu.sh: $2" >&2; exit "$1"; }
has() { [[ " $2 " == *" $1 "* ]]; }  # WORD WORDS

asked="$*"
for section in $asked; do
    has "$section" "$SECTIONS" || fail 2 "$section: no such section; there are: $SECTIONS"
done

python=${PYTHON:-$([ -x .venv/bin/python ] && echo "$PWD/.venv/bin/python" || echo python3)}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/affect"
for name in engine kernels shards bench configs; do ln -s "$PWD/$name" "$work/affect/$name"; done
export PYTHONPATH="$work${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 CUDA_VISIBLE_DEVICES="${CUDA_VISIBLE_DEVICES-0}"
unset TRITON_INTERPRET KERNELS KERNELS_CHECK

gpu=$("$python" -c 'import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else "")' 2>"$work/error") ||
    fail 1 "$python cannot import torch: $(tail -n 1 "$work/error")"
[ -n "$gpu" ] || fail 1 "no GPU: torch finds no CUDA device; everything here needs one. Without a GPU: pytest tests/kernels"
machine=$("$python" -c 'from affect.bench.record import machine_name; print(machine_name())') || fail 1 "affect.bench does not import"
mkdir -p bench/results
touch "$NOTES"
log=${OUT:-$work}/gpu.log
echo "$gpu: bench/results/$machine.jsonl"

failed="" left_out="" waiting=""

run() {  # SECTION SECONDS COMMAND...
    local section=$1 limit=$2 began=$SECONDS rc missing
    shift 2
    if [ -n "$asked" ]; then
        has "$section" "$asked" || return 0
    elif grep -qx "$section" "$NOTES"; then
        echo "== $section: done before"
        return 0
    fi
    if ((TOTAL_S - SECONDS < 15)); then
        waiting+=" $section"
        return 0
    fi
    ((limit <= TOTAL_S - SECONDS)) || limit=$((TOTAL_S - SECONDS))
    echo "== $section, $limit s at most"
    timeout --signal=INT --kill-after=5 "$limit" "$@" >"$work/said" 2>&1 </dev/null
    rc=$?
    { echo "== $section"; cat "$work/said"; } >>"$log"
    missing=$(grep -o "No module named '[^']*'" "$work/said" | head -n 1)
    if [ $rc -eq 0 ]; then
        cat "$work/said"
        grep -qx "$section" "$NOTES" || echo "$section" >>"$NOTES"
        echo "== $section: done in $((SECONDS - began)) s"
    elif [ -n "$missing" ]; then
        left_out+=" $section"
        echo "== $section: left out: $missing"
    else
        failed+=" $section"
        tail -n 60 "$work/said"
        [ $rc -ne 124 ] && [ $rc -ne 137 ] || echo "== $section: stopped after its $limit s"
        echo "== $section: failed ($rc)"
    fi
    if [ -n "${OUT:-}" ]; then
        cp "$NOTES" "$OUT/gpu-done"
        [ ! -f "bench/results/$machine.jsonl" ] || cp "bench/results/$machine.jsonl" "$OUT/"
    fi
}

for test in $TESTS; do run "$test" 150 "$python" -m pytest -p no:cacheprovider --maxfail=20 "tests/kernels/$test.py"; done
for op in $OPS; do run "$op" 180 "$python" -m affect.bench.kernels --op "$op" --save; done
run train 120 "$python" -m affect.engine.cli.main bench train --batch 256 --pictures 1024 --seconds 1 --rounds 3
run latency 150 "$python" -m affect.engine.cli.main bench latency --part graph --seconds 0.5 --rounds 3

[ -z "$left_out" ] || echo "left out, for want of packages:$left_out"
[ -z "$waiting" ] || echo "not begun within $TOTAL_S s, call again:$waiting"
[ -z "$failed" ] || echo "failed:$failed"
[ -z "$failed$waiting" ]
