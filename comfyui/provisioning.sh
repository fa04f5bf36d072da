#!/usr/bin/env bash
# Give a ComfyUI what the templates need: the StoryDiffusion nodes and the model files.
#
#   provisioning.sh nodes     StoryDiffusion at one commit, with its packages, into ComfyUI's own environment
#   provisioning.sh models    every file of the table: resumed, checked by size and sha256, only then in its place
#   provisioning.sh           both
#
# Run it as often as you like: what is there and right is left alone. Whatever is wrong ends it with one line that names
# it and a status other than 0, and leaves nothing half done in the place of something whole.
#
# Settings, all from the environment:
#   COMFYUI_HOME           ComfyUI's folder                                               /opt/ComfyUI
#   COMFYUI_VENV_PIP       the pip of ComfyUI's own environment                           none: it is never guessed
#   STORYDIFFUSION_REPO    where its nodes come from                                      its public repository
#   STORYDIFFUSION_COMMIT  the commit, 40 digits                                          the one the templates are for
#   STORYDIFFUSION_NEEDS   a pip requirements file                                        containers/storydiffusion.txt
#   MODEL_DIR              where models go                                                $COMFYUI_HOME/models
#   MODELS                 the table of files                                             containers/models.txt
#   MODELS_FROM            a server of your own: FOLDER/FILE is fetched below this        none: the table's addresses
#   HF_TOKEN, CIVITAI_TOKEN  sent to huggingface.co and civitai.com, for files that ask   none
#   TRIES, PAUSE_S         how often a broken download goes on, and after what wait       10, 5
set -euo pipefail
umask 022

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
: "${COMFYUI_HOME:=/opt/ComfyUI}"
: "${STORYDIFFUSION_REPO:=https://github.com/smthemex/ComfyUI_StoryDiffusion}"
: "${STORYDIFFUSION_COMMIT:=e4e0acdfb7002d89969e24d792d2b53c411c9d80}"
: "${STORYDIFFUSION_NEEDS:=$here/containers/storydiffusion.txt}"
: "${MODEL_DIR:=$COMFYUI_HOME/models}"
: "${MODELS:=$here/containers/models.txt}"
: "${MODELS_FROM:=}"
: "${HF_TOKEN:=}"
: "${CIVITAI_TOKEN:=}"
: "${TRIES:=10}"
: "${PAUSE_S:=5}"
#: Folders that StoryDiffusion and ComfyUI expect, or make at their start, where models may be read-only by then.
folders=(checkpoints clip clip_vision controlnet diffusion_models embeddings gguf loras photomaker upscale_models vae)

say() { printf 'provisioning: %s\n' "$*"; }
fail() {
  printf 'provisioning: %s\n' "$*" >&2
  exit 1
}

nodes() {
  local home="$COMFYUI_HOME/custom_nodes/ComfyUI_StoryDiffusion" wanted
  [[ "$STORYDIFFUSION_COMMIT" =~ ^[0-9a-f]{40}$ ]] ||
    fail "STORYDIFFUSION_COMMIT=$STORYDIFFUSION_COMMIT: want the 40 digits of a commit, which nobody can move"
  [ -d "$COMFYUI_HOME/custom_nodes" ] || fail "$COMFYUI_HOME: no ComfyUI there (no custom_nodes): set COMFYUI_HOME"
  [ -r "$STORYDIFFUSION_NEEDS" ] || fail "$STORYDIFFUSION_NEEDS: cannot be read: set STORYDIFFUSION_NEEDS"
  wanted="$STORYDIFFUSION_COMMIT $(sha256sum <"$STORYDIFFUSION_NEEDS" | cut -d ' ' -f 1)"
  if [ "$(cat "$home/.provisioned" 2>/dev/null)" = "$wanted" ]; then
    say "StoryDiffusion is there"
    return
  fi
  [ -x "${COMFYUI_VENV_PIP:-}" ] ||
    fail "COMFYUI_VENV_PIP=${COMFYUI_VENV_PIP:-}: want the pip of ComfyUI's own environment; no other one helps it"
  say "StoryDiffusion: fetching commit $STORYDIFFUSION_COMMIT"
  # Not beside it: ComfyUI would load what a cut-off run left there.
  draft="$COMFYUI_HOME/StoryDiffusion.draft"
  trap 'rm -rf "$draft"' EXIT
  rm -rf "$draft"
  git init --quiet "$draft"
  git -C "$draft" fetch --quiet --depth 1 "$STORYDIFFUSION_REPO" "$STORYDIFFUSION_COMMIT" ||
    fail "$STORYDIFFUSION_REPO: commit $STORYDIFFUSION_COMMIT cannot be had from there"
  git -C "$draft" -c advice.detachedHead=false checkout --quiet FETCH_HEAD
  rm -rf "$draft/.git"
  # What ComfyUI runs on must not change under it: a conflict is to be seen here, not in the middle of a job.
  "$COMFYUI_VENV_PIP" list --format freeze >"$draft/.present"
  "$COMFYUI_VENV_PIP" install --quiet --no-cache-dir --constraint "$draft/.present" \
    --requirement "$STORYDIFFUSION_NEEDS" ||
    fail "the packages of $STORYDIFFUSION_NEEDS do not go with what ComfyUI runs on"
  echo "$wanted" >"$draft/.provisioned"
  rm -rf "$home"
  mv -T "$draft" "$home"
  say "StoryDiffusion is installed"
}

models() {
  local number=0 file bytes sha256 address more
  local name='^[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)+$'
  [ -r "$MODELS" ] || fail "$MODELS: cannot be read: set MODELS"
  mkdir -p "${folders[@]/#/$MODEL_DIR/}" || fail "$MODEL_DIR: cannot be written"
  # One at a time: ComfyUI containers share the folder.
  exec 9>"$MODEL_DIR/.provisioning" || fail "$MODEL_DIR: cannot be written"
  flock 9
  while read -r file bytes sha256 address more || [ -n "$file" ]; do
    number=$((number + 1))
    case "$file" in '' | '#'*) continue ;; esac
    [[ $file =~ $name && $bytes =~ ^[1-9][0-9]*$ && $sha256 =~ ^[0-9a-f]{64}$ && -n $address && -z $more ]] ||
      fail "$MODELS:$number: want FOLDER/FILE BYTES SHA256 ADDRESS, got: $file $bytes $sha256 $address $more"
    model "$file" "$bytes" "$sha256" "${MODELS_FROM:+${MODELS_FROM%/}/$file}" "$address"
  done <"$MODELS"
  say "all models are there"
}

model() { # FOLDER/FILE BYTES SHA256 OWN-ADDRESS PUBLIC-ADDRESS
  local target="$MODEL_DIR/$1" bytes="$2" sha256="$3" address="${4:-$5}"
  local part="$target.part" proof="$target.sha256" have room
  if [ -e "$target" ]; then
    if [ "$(cat "$proof" 2>/dev/null)" != "$sha256" ] || [ "$target" -nt "$proof" ]; then
      say "$1: checking what lies there"
      right "$target" "$bytes" "$sha256" || fail "$target: not the file of the table ($wrong): move it away"
      echo "$sha256" >"$proof"
    fi
    say "$1 is there"
    return
  fi
  mkdir -p "${target%/*}"
  have="$(size "$part")"
  room="$(df --output=avail --block-size=1 "${target%/*}" | tail -n 1)"
  [ $((bytes - have)) -le "$room" ] || fail "$1: needs $((bytes - have)) bytes more; $MODEL_DIR has room for $room"
  fetch "$address" "$part" "$bytes"
  if ! right "$part" "$bytes" "$sha256"; then
    rm -f "$part"
    fail "$1: $address gave another file ($wrong): deleted"
  fi
  sync "$part"
  mv -T "$part" "$target"
  echo "$sha256" >"$proof"
  say "$1 is there"
}

fetch() { # ADDRESS FILE BYTES: goes on with what FILE holds already, over breaks of the line
  local address="$1" file="$2" bytes="$3" try status answer token=""
  case "$address" in
    https://huggingface.co/*) token="$HF_TOKEN" ;;
    https://civitai.com/*) token="$CIVITAI_TOKEN" ;;
  esac
  for ((try = 1; try <= TRIES; try++)); do
    [ "$(size "$file")" -lt "$bytes" ] || return 0
    say "fetching $address from byte $(size "$file") of $bytes"
    status=0
    # The token goes in by a pipe: a command line can be read by others.
    answer="$(curl --config - --silent --show-error --fail --location --continue-at - --max-filesize "$bytes" \
      --connect-timeout 20 --speed-limit 1024 --speed-time 60 --write-out '%{http_code}' --output "$file" "$address" \
      <<<"${token:+oauth2-bearer = \"$token\"}")" || status=$?
    case "$status $answer" in
      "0 "*) return 0 ;;
      "22 416" | "33 "*) rm -f "$file" ;; # it cannot go on from there: from the start
      "22 408" | "22 429" | "22 5"*) sleep "$PAUSE_S" ;;
      "22 "*) fail "$address: answers $answer" ;;
      "23 "*) fail "$file: cannot be written" ;;
      "63 "*) fail "$address: larger than the $bytes bytes of the table" ;;
      *) sleep "$PAUSE_S" ;;
    esac
  done
  fail "$address: broke off $TRIES times; $file is kept, and the next run goes on with it"
}

size() { stat --format %s "$1" 2>/dev/null || echo 0; }

right() { # FILE BYTES SHA256: whether it is that file; `wrong` says why not
  local found
  found="$(size "$1")"
  wrong="$found bytes, want $2"
  [ "$found" = "$2" ] || return 1
  found="$(sha256sum "$1" | cut -d ' ' -f 1)"
  wrong="sha256 $found, want $3"
  [ "$found" = "$3" ]
}

case "${1:-both}" in
  nodes) nodes ;;
  models) models ;;
  both)
    nodes
    models
    ;;
  *) fail "$1: want nodes, models or nothing" ;;
esac
