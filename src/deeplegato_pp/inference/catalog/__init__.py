"""From a mosaic and a list of sources to a table of posteriors, resumable and on many machines."""
