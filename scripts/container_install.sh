#!/usr/bin/env bash
# Inside NVIDIA's NeMo container: add what nemo_amalia needs and the image lacks; move nothing that it has.
# Called by Dockerfile.nemo and slurm/nemo_amalia.def with the repository as working directory.
set -euo pipefail

installer() { # the image's virtual environment may be uv's, which has no pip
  if python -m pip --version >/dev/null 2>&1; then python -m pip "$@"; else uv pip "$@"; fi
}

state=$(mktemp -d)
installer list --format=freeze | grep -E '^[A-Za-z0-9._-]+==' | sort >"$state/before"

# Pins of pyproject.toml that are not installed. s3fs must match the fsspec that the image has, whichever that is.
python - >"$state/lacking" <<'PYTHON'
from nemo_amalia.cluster.doctor.requirements import requirements

for need in requirements():
    if not need.extra and need.installed is None:
        print(need.name if need.name == "s3fs" else f"{need.name}=={need.pin}")
PYTHON
echo "container: adds $(tr '\n' ' ' <"$state/lacking")"

# Every package of the image is a constraint. nemo_toolkit comes without its own list, which asks for an older hydra.
if grep -v '^nemo_toolkit==' "$state/lacking" >"$state/with_needs"; then
  installer install --no-cache-dir --constraint "$state/before" --requirement "$state/with_needs"
fi
if grep '^nemo_toolkit==' "$state/lacking" >"$state/alone"; then
  installer install --no-cache-dir --no-deps --requirement "$state/alone"
fi
installer install --no-cache-dir --no-deps --no-build-isolation --editable . # conf/ is found beside the package alone

installer list --format=freeze | grep -E '^[A-Za-z0-9._-]+==' | sort >"$state/after"
moved=$(comm -23 "$state/before" "$state/after" | grep -v '^nemo_amalia==' || true)
if [ -n "$moved" ]; then
  echo "error: the image's own packages were moved: $(tr '\n' ' ' <<<"$moved")" >&2
  exit 1
fi
rm -rf "$state"
