# The configuration, the paths and what is said when something is wrong. What the rules ask of a plan stands in planned.smk,
# what they ask of the selected model in selected.smk.

import re
import sys
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import SimpleNamespace

try:
    import segwright.experiment
except ModuleNotFoundError:  # not installed: use the library of this checkout, as the scripts do
    sys.path.insert(0, str(Path(workflow.basedir) / "src"))

from snakemake.common import NOTHING_TO_BE_DONE_MSG
from snakemake.exceptions import IncompleteCheckpointException
from snakemake.logging import logger
from snakemake.persistence import PersistenceBase

from segwright.core.configfile import read_source
from segwright.core.errors import SegwrightError, some
from segwright.core.files import file_digest, read_json, read_only_text
from segwright.core.plugins import may_use_plugins
from segwright.core.settings import to_plain
from segwright.core.versions import STAGE_VERSION
from segwright.experiment import ALL, Experiment, candidate_of, read_image_reader, read_selected_members
from segwright.inference.finished import keeps_probabilities
from segwright.inspection.batch_number import require_batches
from segwright.planned import planned_configuration, previous_stages, read_configurations


def stop(message):
    """End with this message alone. Snakemake frames any exception with places in these files, but lets an exit pass."""
    logger.error(message)
    sys.exit(1)


@contextmanager
def one_message():
    """What a user can mend is said in one message, wherever the graph meets it."""
    try:
        yield
    except SegwrightError as error:
        stop(str(error))


def compare_params_without_pandas():
    """Wherever pandas is installed, Snakemake loads it to tell data frames among params, of which there are none here.

    That takes 0.3 of the 2 seconds of a dry run and of the start of every job on a cluster. A Snakemake that no longer
    has this method keeps its own way.
    """
    if hasattr(PersistenceBase, "_serialize_param_builtin"):
        PersistenceBase._serialize_param = PersistenceBase._serialize_param_builtin


compare_params_without_pandas()

if Path("config/config.yaml").is_file():
    with one_message():
        read_source("config/config.yaml")  # Snakemake takes a file that is no text for a bug

    configfile: "config/config.yaml"


with one_message():
    for path in workflow.configfiles:  # Snakemake has read them, but takes the last of two equal keys without a word
        read_source(path)
    EXPERIMENT = Experiment.load(config)

if not EXPERIMENT.datasets:
    print("No dataset is configured; name one: datasets: {NAME: {path: FOLDER}} (see README.md)", file=sys.stderr)

SETTINGS = EXPERIMENT.settings
EXECUTION = SETTINGS.execution
RESULTS = Path(SETTINGS.results)
D = RESULTS / "{dataset}" / "data"
R = RESULTS / "{dataset}" / "{pipeline}"
LOGS = RESULTS / "logs" / "{dataset}"
BENCHMARKS = RESULTS / "benchmarks" / "{dataset}"
CPU_ONLY = EXECUTION.device == "cpu"
TARGETS = [f"{stage}_all" for stage in ("inspect", "plan", "preprocess", "train", "evaluate", "predict", "report")]


with one_message():  # every job of the inspection would say it
    for name, entry in SETTINGS.datasets.items():
        require_batches(RESULTS / name / "data", entry.batches)


def data_folder(dataset):
    """`D` of a dataset; Snakemake compares paths as text, so they are put together as the outputs of the rules are."""
    return (RESULTS / dataset / "data").as_posix()


def pipeline_folder(dataset, pipeline):
    """`R` of a pipeline on a dataset."""
    return (RESULTS / dataset / pipeline).as_posix()


def inspection_records(dataset):
    """What inspection says of the training cases, batch by batch."""
    return [f"{data_folder(dataset)}/inspection/{batch}.json" for batch in EXPERIMENT.training_batches(dataset).names]


def test_records(dataset):
    """What inspection says of the test images, batch by batch."""
    return [f"{data_folder(dataset)}/test/{batch}.json" for batch in EXPERIMENT.test_batches(dataset).names]


def one_of(names):
    """Regular expression of these names: what others made, or an older configuration, is no result of any rule."""
    return "|".join(map(re.escape, names)) or "(?!)"


wildcard_constraints:
    dataset=one_of(EXPERIMENT.datasets),
    pipeline=one_of(EXPERIMENT.pipelines),
    batch=r"batch_\d+",
    configuration=r"[A-Za-z0-9_]+",
    ensemble=r"[A-Za-z0-9_]+\+[A-Za-z0-9_]+",
    fold=r"\d+|all",
    data_id=r"[A-Za-z0-9_\-]+",


# --- targets that nothing makes: one message ----------------------------------------------------------------------------

NO_RULE = re.compile(r"No rule to produce (.*?) \(if you use input functions", re.DOTALL)
FRAMED = re.compile(
    rf"^ *(?:{'|'.join(error.__name__ for error in SegwrightError.__subclasses__())}): (.*?)\n *Wildcards:$",
    re.MULTILINE | re.DOTALL,
)


def say_what_can_be_asked_for(record):
    """Log filter: Snakemake does not know what is configured, and frames what input functions raise with places here."""
    text = str(record.msg) if getattr(record, "exception", None) else ""
    if unknown := NO_RULE.search(text):
        record.msg = (
            f"nothing makes {unknown[1]}: targets are {', '.join(TARGETS)} and files below {RESULTS} of the datasets"
            f" {some(EXPERIMENT.datasets)} (pipelines: {some(EXPERIMENT.pipelines)}); correct it, or the configuration"
        )
    elif told := FRAMED.findall(text):
        record.msg = "\n".join(dict.fromkeys(told))
    return True


if workflow.is_main_process and EXPERIMENT.datasets:
    logger.addFilter(say_what_can_be_asked_for)


# --- read-only folders: one message before any job starts ---------------------------------------------------------------


def read_only_message():
    """What to say if a job that is to run may not write where it must; else None. Needs the graph."""
    problem = read_only_text(path for job in workflow.dag.needrun_jobs() for path in (*job.output, *job.log))
    return problem and (
        f"{problem}. Make it writable, or put the results elsewhere (`results:` in the configuration; a copy made with"
        " `cp -a` goes on where these are, see README.md), then run again. Nothing was changed"
    )


def say_read_only(record):
    """Log filter: outputs that must not be replaced are a list of files to Snakemake; say why, and what to do."""
    if getattr(record, "exception", None) == "ProtectedOutputException":
        record.msg = read_only_message() or record.msg
    return True


if workflow.is_main_process and EXPERIMENT.datasets:
    logger.addFilter(say_read_only)
    if problem := read_only_text([".snakemake/log"]):
        stop(
            f"{problem}. Snakemake keeps its own notes there: make it writable, or run in another folder (--directory)"
        )


def require_writable_results():
    """Before any job starts."""
    if problem := read_only_message():
        stop(problem)


# --- copied results: Snakemake knows its results by their paths, and takes for good what it does not know -----------------


def unknown_making_message():
    """What to say if Snakemake does not know how results that are to stay were made. Needs the graph."""
    dag = workflow.dag
    rules = {job.rule.name for job in dag.jobs if dag.reason(job).no_metadata and not dag.needrun(job)}
    return rules and (
        f"Snakemake does not know with what settings the results of {', '.join(sorted(rules))} were made: they were"
        " copied, or their path is spelled in another way. A change of the settings makes none of them again. Do they"
        " fit the configuration? Then give the same command once with `--touch --forceall`; else delete them"
    )


def warn_of_unknown_making():
    if problem := unknown_making_message():
        logger.warning(problem)


def warn_where_nothing_starts(record):
    """Log filter: `onstart` is not called where nothing is to be done."""
    if record.msg == NOTHING_TO_BE_DONE_MSG:
        warn_of_unknown_making()
    return True


if workflow.is_main_process and EXPERIMENT.datasets:
    logger.addFilter(warn_where_nothing_starts)


# --- facts, digests and tables that several rules ask for ---------------------------------------------------------------


def dataset_json(wildcards):
    """The file that describes the dataset."""
    return str(EXPERIMENT.datasets[wildcards.dataset].folder / "dataset.json")


def declared_labels(wildcards):
    """Labels, regions and ignore label of the dataset, as params of what counts by them."""
    return EXPERIMENT.datasets[wildcards.dataset].labels.to_json()


def plugin_digests(wildcards):
    """Digest of every plugin file where the pipeline may use one, so that a changed plugin re-runs what uses it."""
    used = may_use_plugins(EXPERIMENT.pipeline(wildcards.pipeline))
    return {Path(path).name: file_digest(path) for path in SETTINGS.plugins} if used else {}


def digests(paths):
    """Digests of small files that people write, as params: Snakemake does not see one replaced by an older one."""
    return [file_digest(path) for path in paths]


def pinned_plans(wildcards):
    """The plans file that a pipeline uses instead of planning, if it does."""
    path = EXPERIMENT.pipeline(wildcards.pipeline).planning.plans_file
    return [path] if path else []


def split_tables(dataset):
    """The user's case table and splits file, where given, and a splits file in the raw folder."""
    entry = SETTINGS.datasets[dataset]
    in_raw_folder = EXPERIMENT.datasets[dataset].folder / "splits_final.json"
    tables = [entry.case_table, entry.splits.file, in_raw_folder if in_raw_folder.is_file() else None]
    return [str(path) for path in tables if path]
