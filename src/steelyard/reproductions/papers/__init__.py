"""The five systems, one file each: experiments, figures of the paper, and how its claim is judged."""
