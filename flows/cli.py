"""The `dfnas` command. Exit codes: 0 done, 1 failed or broken, 2 bad input, 130 interrupted, 143 terminated."""

import importlib.metadata
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from flows import first_contact
from nas_core.reporting.wording import command

if TYPE_CHECKING:
    from flows.pipeline import Goal
    from nas_core.config import RunConfig
    from storage.layout import RunLayout

# Starting Prefect's embedded server takes longer than its own patience on a busy laptop.
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")

app = typer.Typer(
    name="dfnas",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file that describes the run")]


Verbose = Annotated[bool, typer.Option("--verbose", help="show Prefect's log on the terminal too")]
RunDirectory = Annotated[
    str | None,
    typer.Option("--run-dir", metavar="DIR", help="run directory, new or to be resumed", show_default="runs/<name>"),
]
Directory = Annotated[str, typer.Argument(metavar="DIR", help="run directory, or its URL")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="override a setting, such as search.strategy.epochs=5; repeatable"),
]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dfnas {importlib.metadata.version('dfnas')}")
        raise typer.Exit


@app.callback()
def options(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version and exit")
    ] = False,
) -> None:
    """Data-free neural architecture search: from a pretrained classifier to a new one, without its data."""


for first in (first_contact.init, first_contact.estimate, first_contact.doctor):
    app.command()(first)


@app.command()
def run(
    config: ConfigFile,
    run_dir: RunDirectory = None,
    settings: Settings = None,
    until: Annotated[
        str, typer.Option(metavar="STAGE", help="stop after synthesis, search, retrain, evaluate or report")
    ] = "report",
    reuse: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="another run with the same teacher, seed and synthesis: its images, and all else that this run would "
            "make alike, are copied instead of made",
        ),
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Run the pipeline, or resume it: what is done in the run directory is not done again."""
    from flows.config_file import read_config

    parsed = read_config(config, settings or [])
    from flows.pipeline import Goal

    if until not in {goal.value for goal in Goal}:
        fail(f"--until {until} is no stage; choose from {', '.join(goal.value for goal in Goal)}", code=2)
    run_pipeline(parsed, run_dir, Goal(until), reuse, verbose=verbose)
    if until != Goal.REPORT:
        typer.echo("the same command without --until goes on")


@app.command()
def verify(
    directory: Directory,
    as_json: Annotated[bool, typer.Option("--json", help="print the verdict as JSON, for programs")] = False,
) -> None:
    """Check every file of a run against its checksum; exit code 1 if any is broken. Changes nothing."""
    from storage.integrity import verify_run
    from tasks.progress import progress_bar

    layout = layout_of(directory)
    verification = verify_run(layout, progress_bar("verify"))
    if as_json:
        broken = [{"piece": fault.piece, "files": fault.files} for fault in verification.faults]
        typer.echo(json.dumps({"files": verification.files, "broken": broken}, indent=2))
    for fault in [] if as_json else verification.faults:
        typer.echo(f"{fault.piece or 'run directory'}: missing or damaged {', '.join(fault.files)}")
    if verification.faults:
        fail(f"{len(verification.faults)} broken; {command('repair', directory)} makes them anew", code=1)
    if not as_json:
        typer.echo(f"{verification.files} files are sound")


@app.command()
def repair(
    directory: Directory,
    verbose: Verbose = False,
) -> None:
    """Make exactly what is broken or missing anew, with the same bytes, up to the stage that the run had reached."""
    from flows.config_file import read_config

    layout = layout_of(directory)
    parsed = read_config(layout.config)
    from flows.pipeline import Goal
    from tasks.progress import progress_bar
    from tasks.run import last_execution, locked
    from tasks.verification import forget_damaged

    parsed = parsed.model_copy(update={"execution": last_execution(layout)})
    reached = [goal for goal in Goal if layout.manifest(goal).exists()]
    with locked(layout.root):
        forget_damaged(layout, progress_bar("verify"))
    run_pipeline(parsed, directory, reached[-1] if reached else Goal.SYNTHESIS, verbose=verbose)


@app.command(name="export-dataset")
def export_dataset_(
    directory: Directory,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="folder to write; must not exist")],
    form: Annotated[str, typer.Option("--format", metavar="FORMAT", help="imagefolder or webdataset")] = "imagefolder",
) -> None:
    """Write the synthetic images and their labels as an ImageFolder or a WebDataset."""
    from storage.errors import ExistsError
    from storage.export import ExportFormat, export_dataset
    from tasks.progress import progress_bar

    if form not in set(ExportFormat):
        fail(f"--format {form} is unknown; choose from {', '.join(ExportFormat)}", code=2)
    try:
        images = export_dataset(layout_of(directory).dataset, out, ExportFormat(form), progress_bar("export"))
    except ExistsError as error:
        fail(str(error), code=2)
    typer.echo(f"{images} images in {out}")


@app.command(name="import-dataset")
def import_dataset_(
    images: Annotated[
        Path, typer.Argument(metavar="IMAGES", help="an export of dfnas, or a folder of images per class")
    ],
    config: ConfigFile,
    run_dir: RunDirectory = None,
    settings: Settings = None,
    verbose: Verbose = False,
) -> None:
    """Take images from outside in place of synthesis into a run directory; `dfnas run` with its config.yaml goes on."""
    from flows.config_file import read_config, validated
    from tasks.importing import import_section

    parsed = read_config(config, settings or [])
    values = parsed.model_dump(mode="json") | {"synthesis": import_section(parsed, images)}
    from flows.pipeline import Goal

    layout = run_pipeline(validated(values, [], str(config)), run_dir, Goal.SYNTHESIS, verbose=verbose)
    typer.echo(f"{command('run', layout.config, '--run-dir', layout.root)} searches on these images")


@app.command()
def export(
    directory: Directory,
    form: Annotated[str, typer.Option("--format", metavar="FORMAT", help="onnx, torch-export or safetensors")] = "onnx",
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="file to write", show_default="in DIR/export, by the name of the run"),
    ] = None,
    finetuned: Annotated[
        bool, typer.Option("--finetuned", help="the student after fine-tuning on real images, not data-free")
    ] = False,
) -> None:
    """Write the student of a finished run for other programs, checked against the network, with a model card."""
    from nas_core.exporting import ModelFormat
    from tasks.export import export_student
    from tasks.run import load_run

    if form not in set(ModelFormat):
        fail(f"--format {form} is unknown; choose from {', '.join(ModelFormat)}", code=2)
    written = export_student(load_run(directory), ModelFormat(form), output, finetuned=finetuned)
    typer.echo(f"{written.model} (a logit differs by {written.difference:.2g} at most)\nmodel card: {written.card}")


@app.command()
def validate(config: ConfigFile, settings: Settings = None) -> None:
    """Check a config, its teacher and its budget, without running or writing anything."""
    from flows.config_file import read_config
    from tasks.building import preflight

    parsed = read_config(config, settings or [])
    preflight(parsed)
    typer.echo(
        f"{config} is valid: {parsed.synthesis.images} images, {parsed.search.strategy.name} on "
        f"{parsed.search.space.name}"
    )


@app.command(name="measure-latency")
def measure_latency_(
    config: ConfigFile,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="JSON file to write, for search.latency_table")],
    settings: Settings = None,
    device: Annotated[str, typer.Option(help="where the result is to run: cpu, cuda, cuda:N or mps")] = "cpu",
    batch_size: Annotated[int, typer.Option(min=1, help="images per forward pass")] = 1,
    repetitions: Annotated[int, typer.Option(min=1, help="forward passes of which the median is taken")] = 50,
) -> None:
    """Time the parts of the config's search space on this machine, for a budget in milliseconds."""
    from flows.config_file import read_config
    from tasks.latency import write_latency_table

    typer.echo(write_latency_table(read_config(config, settings or []), out, device, batch_size, repetitions))


@app.command()
def status(directory: Directory) -> None:
    """Show what of a run is done."""
    from tasks.run import load_run
    from tasks.status import progress_table

    typer.echo(progress_table(load_run(directory)))


@app.command()
def report(directory: Directory) -> None:
    """Write report.html and results.json of a finished run anew."""
    from tasks.report import rewrite_report
    from tasks.run import load_run
    from tasks.status import summary

    loaded = load_run(directory)
    rewrite_report(loaded)
    typer.echo(summary(loaded.layout))


@app.command()
def compare(
    directories: Annotated[list[str], typer.Argument(metavar="DIR DIR...", help="run directories, or their URLs")],
    output: Annotated[Path, typer.Option(metavar="FILE", help="page to write")] = Path("compare.html"),
) -> None:
    """Write a page that sets several finished runs side by side, and its figures into a folder beside it."""
    from tasks.compare import compare as compare_runs

    compare_runs([run_directory(directory) for directory in directories], output)
    typer.echo(f"comparison: {output}")


@app.command(name="list")
def list_(
    kind: Annotated[str, typer.Argument(metavar="spaces|strategies|teachers|engines|data", help="what to list")],
) -> None:
    """List what a config can choose by name."""
    from nas_core.settings.data import data_sources
    from nas_core.settings.presets import strategies
    from nas_core.settings.spaces import spaces
    from nas_core.settings.synthesis import engines
    from nas_core.settings.teachers import teachers

    known = {"spaces": spaces, "strategies": strategies, "teachers": teachers, "engines": engines, "data": data_sources}
    if kind not in known:
        fail(f"there is no list of '{kind}'; choose from {', '.join(known)}", code=2)
    described = known[kind].describe()
    width = max(map(len, described))
    for name, description in described.items():
        typer.echo(f"{name:<{width}}  {description}")


def run_directory(text: str) -> Path:
    """A folder, or a prefix in an object store; leaves with an exit code if that cannot be reached."""
    from storage.errors import StorageError
    from storage.locations import reach

    try:
        return reach(text)
    except StorageError as error:
        fail(str(error), code=2)


def layout_of(directory: str) -> "RunLayout":
    """Paths of a run directory, damaged or not; leaves with an exit code if it is none, or a link leads out of it."""
    from storage.errors import StorageError
    from storage.files import refuse_outside_links
    from storage.layout import RunLayout

    layout = RunLayout(run_directory(directory).absolute())
    if not (layout.config.exists() or layout.provenance.exists()):
        fail(f"{directory} is no run directory (it has no config.yaml and manifest.json)", code=2)
    try:
        refuse_outside_links(layout.root)
    except StorageError as error:
        fail(str(error), code=2)
    return layout


def run_pipeline(
    config: "RunConfig", run_dir: str | None, goal: "Goal", reuse: str | None = None, *, verbose: bool
) -> "RunLayout":
    """Run the flow up to a goal, show how it ends, and leave with an exit code if that is not well."""
    from prefect import tags

    from flows.pipeline import Goal, dfnas
    from flows.terminal import describe_failure, describe_outage, leaving_at_once
    from nas_core.execution import Local
    from tasks.logs import log_to
    from tasks.run import open_run, refuse_other_run, run_layout
    from tasks.status import summary

    layout = run_layout(config, run_dir)
    # Here as well as in the flow: bad input should not have to wait for a server.
    if isinstance(config.execution, Local):
        open_run(config, run_dir, reuse=reuse)
    else:
        refuse_other_run(layout, config)
    typer.echo(f"{config.name}: {config.synthesis.images} images, run directory {layout.root}", err=True)
    log_to(layout.log, verbose=verbose)
    try:
        with leaving_at_once(), tags("dfnas", config.name):
            state = dfnas(config, str(layout.root), goal, reuse, return_state=True)  # type: ignore[call-arg]
    except KeyboardInterrupt:  # Here, because Typer leaves without a word.
        fail("interrupted; the same command resumes", code=130)
    except Exception as error:
        if (sentence := describe_outage(error)) is None:
            raise
        fail(f"{sentence}\nDetails: {layout.log}. The same command resumes.", code=1)
    if not state.is_completed():
        sentence, code = describe_failure(state)
        fail(f"{sentence}\nDetails: {layout.log}. The same command resumes.", code=code)
    typer.echo(summary(layout) if goal == Goal.REPORT else f"{goal} done")
    return layout


def fail(sentence: str, code: int) -> NoReturn:
    """Say what went wrong and leave."""
    typer.echo(f"dfnas: {sentence}", err=True)
    sys.exit(code)


def main() -> None:
    """Entry point: bad input and trouble with files end in a sentence, not in a traceback."""
    from nas_core.errors import InputError
    from storage.errors import StorageError

    try:
        app()
    except InputError as error:
        fail(str(error), code=2)
    except (StorageError, OSError) as error:
        fail(str(error), code=1)


if __name__ == "__main__":
    main()
