#!/bin/sh
# What the image runs: `hotprompt serve`, after an example adapter was put into a new store of the embedded base model. Flags go to serve.
set -eu
examples=$(dirname "$0")/../share/hotprompt/adapters
if [ -d "$examples" ] && [ -z "${HOTPROMPT_BASE:-}" ] && [ -z "$(ls -A "$HOTPROMPT_STORE")" ]; then
    hotprompt adapters add movie-sentiment "$examples/movie-sentiment"
fi
exec hotprompt serve "$@"
