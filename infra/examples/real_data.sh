#!/usr/bin/env bash
# Real label maps end to end: import an abdominal CT with TotalSegmentator labels, twelve FreeSurfer-style brain maps
# and a 3D Slicer atlas, then plan, generate, verify and report CT and MR cases over them.
#
#   infra/examples/real_data.sh DATA OUT
#
# DATA holds ct_abdomen/, brain_label_maps/ and abdominal_atlas/ (see docs/templates.md for where to get them).
set -euo pipefail
data=${1:?usage: real_data.sh DATA OUT}
out=${2:?usage: real_data.sh DATA OUT}
ctmr=${CTMR:-ctmr}
here=$(cd "$(dirname "$0")/../.." && pwd)
mkdir -p "$out"
export CTMR_TEMPLATES="$out/templates"

$ctmr templates import --replace "$data/ct_abdomen/labels_totalsegmentator_v2.nii.gz" --id ct-abdomen \
    --mapping totalsegmentator_v2 --image "$data/ct_abdomen/ct.nii.gz" \
    --source "TotalSegmentator reference files" --licence Apache-2.0
$ctmr templates import --replace "$data"/brain_label_maps/training_seg_*.nii.gz \
    --mapping freesurfer --source "SynthSeg training label maps" --licence Apache-2.0
# This atlas' header understates its spacing, and its ribs and hips carry no side.
$ctmr templates import --replace "$data/abdominal_atlas/seg.nrrd" --id spl-abdomen --mapping spl_abdominal_atlas \
    --spacing-scale 1.3 1.3 1.94 --split-sides --drop-unknown \
    --source "SPL abdominal atlas" --licence "3D Slicer licence"
$ctmr templates list

$ctmr plan "$here/manifests/real_data.yaml" --library "$CTMR_TEMPLATES" --out "$out/real.parquet"
$ctmr generate "$out/real.parquet" --library "$CTMR_TEMPLATES" --out "$out/dataset"
$ctmr verify "$out/dataset"
$ctmr report "$out/dataset"
