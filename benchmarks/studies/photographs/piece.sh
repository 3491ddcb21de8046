#!/bin/sh
# One piece of one run, of at most ten minutes: called again, it continues from where it was saved, and once the run is
# finished it prints its result at once.
#
#   sh benchmarks/studies/photographs/piece.sh --config benchmarks/studies/photographs/wrn28-1-wrn16-1.yaml \
#     --preset fast/cifar10/wrn40-2-wrn16-1 --device cuda --set student.precision=bfloat16
#
# Arguments are those of lra-bench run. PYTHON is the interpreter from which to make an environment, if none has this
# package; it should have torch. WHEELS is a folder of wheels for a machine without access to a registry.
# SECONDS_A_PIECE is what a piece may take, 570 by default; saving takes some of the rest. Exits with 75 while there is
# more to do.
set -eu
root=$(cd "$(dirname "$0")/../../.." && pwd)
python=${PYTHON:-python3}
if [ -x "$root/.venv/bin/python" ]; then python=$root/.venv/bin/python; fi
if ! "$python" -c 'import lra.benchmarks' 2>/dev/null; then
  "$python" -m venv --system-site-packages "$root/.venv"
  python=$root/.venv/bin/python
  "$python" -m pip install --quiet ${WHEELS:+--no-index --find-links "$WHEELS"} --editable "$root"
fi
code=0
timeout --signal=TERM --kill-after=25 "${SECONDS_A_PIECE:-570}" "$python" -m lra.benchmarks run "$@" || code=$?
if [ "$code" = 124 ]; then
  echo "piece.sh: there is more to do: call it again as it was" >&2
  exit 75
fi
exit "$code"
