# shellcheck shell=bash disable=SC2034
# NVIDIA DGX SuperPOD: 8 GPUs a node, enroot and pyxis. AMALIA_IMAGE: a .sqsh that all nodes see, made once with
#   enroot import -o nemo_amalia.sqsh dockerd://nemo_amalia
: "${AMALIA_IMAGE:=$AMALIA_ROOT/nemo_amalia.sqsh}"
: "${AMALIA_MOUNTS:=$AMALIA_ROOT:$AMALIA_ROOT,$PWD:$PWD}" # and the places of data, checkpoints and runs
[[ -e $AMALIA_IMAGE ]] || refuse "no image $AMALIA_IMAGE: make it (docs/cluster.md), or name it in AMALIA_IMAGE"
site_cluster=dgx_h100
site_srun=(--container-image="$AMALIA_IMAGE" --container-mounts="$AMALIA_MOUNTS" --container-workdir="$PWD")
export PYTHONNOUSERSITE=1 # packages in the home would come before the image's
export PYTHONPATH=$AMALIA_ROOT # this repository's code and conf/, not the copy in the image
