#!/bin/sh
# Exports a model by a plan and holds the bundle to the gates of that plan, or a bundle that is there: BUNDLE=path sh verify.sh
#
# Ends with the status of qdx: 0 if all gates hold, 1 if one fails, 2 if a bundle, model or plan is invalid; others are
# in docs/exit-statuses.md. Variables choose what it works on; the report is in $OUT/report in any case.
set -eu

MODEL=${MODEL:-model}
TARGET=${TARGET:-onnxruntime}
PLAN=${PLAN:-ci/plan.json}
CALL=${CALL:-ci/call.json}
OUT=${OUT:-out}
BUNDLE=${BUNDLE:-}

mkdir -p "$OUT"
if [ -z "$BUNDLE" ]; then
    BUNDLE=$OUT/bundle
    qdx export "$MODEL" --target "$TARGET" --plan "$PLAN" --call "$CALL" --output "$BUNDLE" --force
fi
qdx verify "$BUNDLE" --model "$MODEL" --plan "$PLAN" --call "$CALL" --report "$OUT/report"
