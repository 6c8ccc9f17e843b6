"""DICOM: image series, segmentations and structure sets of a case, in one study."""
