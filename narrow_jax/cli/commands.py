"""The commands: their words, their options, and where their work is. Nothing here loads JAX."""

from __future__ import annotations

from collections.abc import Sequence

from narrow_jax.cli.command import MEMORY_BUDGET, Command, Option, option, overwrite, path, switch
from narrow_jax.cli.train_config import ACTIVATIONS, FIELDS, SWEPT, TrainConfig, options_of

_DATA = ("dataset", "data", "target", "task", "labels", "classes", "samples", "normalize")
MEMORIZE = (*_DATA, "activation", "zeta", "kappa", "seed")
PYRAMIDAL = (*_DATA, "seed")
SPECTRUM = (*_DATA, "model", "width", "widths", "activation", "seed")
"""The fields of the config that commands take as options."""

DRAWN = TrainConfig(samples=200)
"""All digits with their ten classes are 17,970 rows, whose work takes many minutes."""

STARTS = ("search", "identity", "gaussian", "lecun")

RUN = option(
    "--run",
    "folder of `memorize` or `train`; of a run that has not ended, its newest checkpoint",
    dest="folder",
    type=path,
    required=True,
)

COMMANDS = (
    Command(
        "train",
        help="train a narrow net under the constraints",
        description="Train a net, of one hidden layer or a deep pair: hidden weights in a ball around their start, "
        "output weights in a cone. Writes the model as nj.load reads it (model.safetensors, model.json), config.json, "
        "history.jsonl (history.part.jsonl while it runs) and summary.json. Exit status 1 if it diverged.",
        example="train --dataset digits --labels random --normalize whiten --width 120 --radius 0.1; narrow-jax train "
        "--data table.csv --target price --radius 0.1 1 10 --seed 0 1 2",
        options=[
            *options_of(FIELDS, swept=SWEPT),
            option(
                "--config",
                "config.json of a run, which is run again, with the other options changed",
                type=path,
            ),
            switch("--strict", "refuse a width too small for the data"),
            option("--out", "folder of the run (default: runs/DATA-MODEL-SEED)", type=path),
            overwrite(),
            option(
                "--checkpoint",
                "save checkpoints there (without DIR: in the folder of the run); Ctrl-C then saves and leaves",
                type=path,
                nargs="?",
                const=True,
                metavar="DIR",
            ),
            option("--save-every", "steps between checkpoints (default: a 25th of --steps)", type=int),
            option(
                "--resume",
                "go on from the newest checkpoint, or from that of STEP; needs the options of the first call",
                type=int,
                nargs="?",
                const=True,
                default=False,
                metavar="STEP",
            ),
        ],
        run="train:run",
        prints="summary",
    ),
    Command(
        "predict",
        help="predict by the net of a run, from a table or arrays",
        description="Predict the target of each row of a file by the net of a run. Rows are given as those of training "
        "were stored; of a table the columns are found by their names. The folder may be one of nj.save too. Of a run "
        "that was killed the weights are those of its newest checkpoint; its data are not needed.",
        example="predict --run runs/table-pairwise-0 --data new.csv --out predicted.csv",
        options=[
            RUN,
            option("--data", "table (.csv, .tsv, .parquet, .npy), or .npz with x", type=path, required=True),
            option("--out", "table of the predictions, .csv (default: print them)", type=path),
            switch("--probabilities", "the probability of each class too"),
            overwrite("table of predictions"),
        ],
        run="using:predict",
        prints="predictions",
    ),
    Command(
        "evaluate",
        help="how good the net of a run is on data that it has not seen",
        description="Print the accuracy of a run, or R² and the root of the mean squared error, on a file with the "
        "target, or on the test split of the run.",
        example="evaluate --run runs/table-pairwise-0 --data test.csv",
        options=[
            RUN,
            option("--data", "as for `predict`, with the target (default: the run's test split)", type=path),
        ],
        run="using:evaluate",
    ),
    Command(
        "runs",
        help="a table of all runs",
        description="Print a table of the runs in a folder and below.",
        example="runs",
        options=[option("--folder", "where the runs are (default: runs)", type=path)],
        run="listing:run",
        prints="table",
    ),
    Command(
        "report",
        help="one HTML file about a run: settings, curves, certificates",
        description="Write one self-contained HTML file about a run, with pictures: what was run, how it went, what is "
        "proven.",
        example="report --run runs/table-pairwise-0 --out report.html",
        options=[
            RUN,
            option("--out", "the file (default: report.html in the folder of the run)", type=path),
            overwrite("report"),
        ],
        run="reporting:run",
        prints="place",
    ),
    Command(
        "completion",
        help="completion of commands and options for your shell",
        description="Print what makes your shell complete commands and options (the extra `shell`).",
        example="completion --shell bash > ~/.local/share/bash-completion/completions/narrow-jax",
        options=[option("--shell", "bash, zsh or tcsh", choices=("bash", "zsh", "tcsh"), required=True)],
        run="completing:run",
        prints="script",
    ),
    Command(
        "spectrum",
        help="the smallest singular value of the Jacobian, with a proven interval",
        description="Print σ_min of the Jacobian of a net with respect to its hidden weights on a data set: of a "
        "start drawn for the options below, or of the params of a run. Exit status 1 if nothing is proven.",
        example="spectrum --dataset digits --normalize whiten --width 120",
        options=[
            *options_of(SPECTRUM, DRAWN),
            option(
                "--run",
                "folder of a run: its params, or those of its newest checkpoint, data and model",
                dest="folder",
                type=path,
            ),
            option("--method", "auto, gram, qr or dense", default="auto"),
            MEMORY_BUDGET,
            option("--plot", "draw all singular values into this file", type=path),
            overwrite("figure"),
        ],
        run="spectrum:run",
    ),
    Command(
        "memorize",
        help="find a narrow net with zero loss, and prove that it is there",
        description="Find a pairwise net, of one hidden layer or several, that fits every label exactly, inside a "
        "ball around a mirrored start, by Newton's method. Writes the model as nj.load reads it "
        "(model.safetensors, with the start, and model.json), config.json and summary.json. Exit status 1 if it is not "
        "proven.",
        example="memorize --dataset digits --labels random --normalize scale --width 80 --radius 0.1",
        options=[
            *options_of(MEMORIZE),
            option("--width", f"{FIELDS['width']['help']} (default: the smallest that works)", type=int),
            option("--widths", FIELDS["widths"]["help"], type=int, nargs="+"),
            option(
                "--depth",
                "in place of --width, how many hidden layers: the smallest equal widths are found",
                type=int,
            ),
            option(
                "--weight-scale",
                "what LeCun's hidden weights are multiplied by at the start (default: 1 for one hidden layer; for "
                "several that of the largest σ_min)",
                type=float,
            ),
            option("--radius", "ε of the ball (default: ε₀ of Theorem 1)", type=float),
            option("--out", "folder of the run (default: runs/DATA-memorize-SEED)", type=path),
            overwrite(),
        ],
        run="memorize:run",
    ),
)


def _kind(
    name: str,
    text: str,
    description: str,
    run: str,
    options: Sequence[Option] = (),
) -> Command:
    """Return a kind of ``certify`` that reads a run."""
    return Command(
        name,
        help=text,
        description=f"{description} Exit status 1 if nothing is proven.",
        example=f"certify {name} --run runs/digits-memorize-0",
        options=[RUN, *options],
        run=run,
    )


THEOREMS = (
    _kind(
        "memorization",
        "an exact zero-loss net is near the net of a run (Theorem 1)",
        "Prove that an exact zero-loss net lies near the net of a run and inside its ball, print the region without "
        "local minima around its start, and audit the assumptions.",
        "narrow_nets:memorization",
    ),
    _kind(
        "nice-region",
        "the radius around the start of a run without bad stationary points (Theorem 1)",
        "Prove that every stationary point within a radius of the start of a run has loss 0.",
        "narrow_nets:nice_region",
    ),
    _kind(
        "kkt",
        "how far a run is from a KKT point of problem (7), and whether those have loss 0 (Theorem 2)",
        "Measure how far the net of a run is from a KKT point of the constrained problem (7), and prove that such "
        "points have loss 0.",
        "narrow_nets:kkt",
    ),
    _kind(
        "descent",
        "gradient descent from the net of a run, or from its start, provably converges",
        "Prove that full-batch gradient descent on ½ Σ (y − f)² reaches loss 0: with which steps, how fast, and how "
        "far away. From the net of a run without a ball, or with --from-start from its start, inside its ball.",
        "narrow_nets:descent",
        [
            switch("--from-start", "judge the start of the run, in the coordinates of `train`"),
            option("--v-scale", "multiply the output weights by that first", type=float, default=1.0),
            option(
                "--wrt",
                "w: the hidden weights move; all: the output weights too, as in `train`",
                choices=("w", "all"),
                default="w",
            ),
            option(
                "--target-loss", "count the steps to it (default: a ten-thousandth of the loss)", type=float
            ),
        ],
    ),
    _kind(
        "gradient-bound",
        "what the gradient at the net of a run proves of its loss",
        "Bound the loss ½ Σ (y − f)² of a run by its gradient and the smallest singular value of its Jacobian.",
        "narrow_nets:gradient_bound",
    ),
    Command(
        "pyramidal",
        help="does gradient descent on a deep pyramidal net provably converge, and how fast",
        description="Check Theorem 3.2 of Nguyen and Mondelli (one wide layer, then a pyramid) for a start on a data "
        "set: one found by search, a draw, or given weights. Exit status 1 if the theorem does not hold.",
        example="certify pyramidal --dataset digits --samples 20 --sphere --widths 100 10",
        options=[
            *options_of(PYRAMIDAL),
            switch("--sphere", "scale each sample to norm √d"),
            option("--targets-scale", "factor of the targets", type=float, default=1.0),
            option(
                "--widths",
                "hidden widths n_1 … n_{L−1}; n_L comes from the data",
                type=int,
                nargs="+",
                default=[100],
            ),
            option(
                "--start",
                "search (section 3.1), or a draw of that variant",
                choices=STARTS,
                default="search",
            ),
            option("--params", "npz file with the weights w1, w2, … instead of a start", type=path),
            option("--gamma", "γ of activation (2), its smallest slope", type=float, default=0.5),
            option("--beta", "β of activation (2), the bound of σ''", type=float, default=1.0),
            option("--activation", f"instead of activation (2): {', '.join(ACTIVATIONS)}"),
            option("--learning-rate", "step to judge (default: the largest certified)", type=float),
            option("--target-loss", "count the steps to it (default: Φ(θ_0)/10⁴)", type=float),
        ],
        run="certify:pyramidal",
    ),
    Command(
        "stationary-value",
        help="the loss that a deep net must have at every differentiable stationary point",
        description="Print how far the squared loss of a run is from the value that it must have at a differentiable "
        "stationary point, and what each layer contributes. For nets without biases whose activations are ReLU, "
        "leaky ReLUs or the absolute value. Exit status 1 if the loss is not that value.",
        example="train --model standard --activation relu --radius inf --out runs/relu; narrow-jax certify "
        "stationary-value --run runs/relu",
        options=[
            option("--run", "folder of a run: params and data", dest="folder", type=path, required=True),
            option("--cutoff", "singular values that count as 0: nr, golub-van-loan, lapack", default="nr"),
            option("--method", "auto, dense, qr, cholesky or lsmr", default="auto"),
            option("--tolerance", "largest gap, as a fraction of ½‖Y‖²", type=float, default=1e-6),
            MEMORY_BUDGET,
        ],
        run="certify:stationary_value",
    ),
)
