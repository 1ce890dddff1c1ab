"""From archives and files to labelled examples with the features that the job computes."""
