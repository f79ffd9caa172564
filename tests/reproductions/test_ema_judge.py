"""The judge of `ema`, on results made up for it: each part can hold, can fail, and rests on what it names."""

from steelyard.reproductions.papers import ema_claim


def test_ema_counts_its_variants_by_beta_and_its_switches_by_name():
    switch = "ema(beta=0.9,per=epoch,scale=paper,variant=to-mean)"
    said = ema_claim._names(
        ["ema(beta=0.9,scale=paper,variant=to-mean)", "ema(beta=0.99,scale=paper,variant=to-mean)", switch]
    )
    assert said == f"3 (to-mean 0.9, 0.99; {switch})"


def test_ema_is_judged_by_its_named_variant_on_every_data_set(outcome):
    others = {"single-task": 0.9, "equal": 0.8, "uw": 0.82}
    good, bad = {**others, ema_claim.NAMED: 0.9}, {**others, ema_claim.NAMED: 0.81}
    assert ema_claim.judge({"A": outcome("a", good), "B": outcome("b", good)})[0].word == "held"
    broken = ema_claim.judge({"A": outcome("a2", good), "B": outcome("b2", bad)})[0]
    assert broken.word == "did not hold"
    assert [part.word for part in broken.parts] == ["held", "did not hold"]
    assert any(
        line.startswith("A: of 1 variant, by more than one point of Δm better than the plain sum 1")
        for line in broken.evidence
    )
    assert ema_claim.judge({"A": outcome("a3", {**good, "uw": None})})[0].word == "undecided"
