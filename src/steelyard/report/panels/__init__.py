"""The panels of a page: which chart shows what of a judgement."""
