"""What the derivations of worked numbers share: gradients by differences, and the file of cases."""

import json
import sys

from mpmath import mp, mpf


def gradient_of(loss_of, case, rows, step="1e-20"):
    step = mpf(step)

    def moved(i, j, by):
        return loss_of(case, [[value + (by if (k, m) == (i, j) else 0) for m, value in enumerate(r)] for k, r in enumerate(rows)])

    return [[(moved(i, j, step) - moved(i, j, -step)) / (2 * step) for j in range(len(row))] for i, row in enumerate(rows)]


def write(cases, name, loss_of):
    """To standard output, each with the loss and its gradient by the rows called `name`."""
    out = []
    for case in cases:
        rows = [[mpf(value) for value in row] for row in case[name]]
        gradient = [[mp.nstr(value, 20) for value in row] for row in gradient_of(loss_of, case, rows)]
        out.append(json.dumps(case | {"loss": mp.nstr(loss_of(case, rows), 20), "gradient": gradient}))
    sys.stdout.write("[\n" + ",\n".join(out) + "\n]\n")
