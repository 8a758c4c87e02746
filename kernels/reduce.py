"""The sums that end every op: each program wrote its own partial sums, and one program adds them, in order."""

import triton  # type: ignore[import-untyped, unused-ignore]
import triton.language as tl  # type: ignore[import-untyped, unused-ignore]


@triton.jit
def finish(  # type: ignore[no-untyped-def]
    partial_ptr, count_ptr, loss_ptr, share_ptr, hits_ptr, P,
    MEAN: tl.constexpr, COUNT: tl.constexpr, HITS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """partial: (3, P) of loss, count, hits, added in order by the only program."""
    loss = tl.zeros((BLOCK,), tl.float32)
    counts = tl.zeros((BLOCK,), tl.float32)
    hits = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, P, BLOCK):
        at = start + tl.arange(0, BLOCK)
        loss += tl.load(partial_ptr + at, mask=at < P, other=0.0)
        counts += tl.load(partial_ptr + P + at, mask=at < P, other=0.0)
        if HITS:
            hits += tl.load(partial_ptr + 2 * P + at, mask=at < P, other=0.0)
    share = tl.full((1,), 1.0, tl.float32)
    if MEAN:
        if COUNT:
            count = tl.load(count_ptr).to(tl.float32)
        else:
            count = tl.sum(counts, 0)
        share = tl.where(count == 0.0, 0.0, 1.0 / tl.where(count == 0.0, 1.0, count)) + tl.zeros((1,), tl.float32)
    one = tl.arange(0, 1)
    tl.store(share_ptr + one, share)
    tl.store(loss_ptr + one, tl.sum(loss, 0) * share)
    if HITS:
        tl.store(hits_ptr, tl.sum(hits, 0))
