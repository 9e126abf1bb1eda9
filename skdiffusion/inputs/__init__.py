"""What users hand over, read in one place: arrays, frames, lists, times, tables, imputers."""
