"""Baselines on request: trained on the same images, judged like the student, and cached like everything else."""

import yaml

from storage.files import digest_of_json, read_json
from storage.manifests import Provenance
from tasks.run import Run, open_run
from tasks.status import progress_table


def with_baselines(run: Run, *kinds: str) -> Run:
    return run.model_copy(update={"config": run.config.model_copy(update={"baselines": kinds})})


def test_baselines_stand_beside_the_student(damageable: Run, complete):
    layout = damageable.layout
    student = layout.weights.read_bytes()
    run = with_baselines(damageable, "handmade", "random", "teacher-shrunk")
    complete(run)
    compared, found = read_json(layout.results)["baselines"], read_json(layout.results)["student"]
    assert [network["kind"] for network in compared["networks"]] == ["handmade", "random", "teacher-shrunk"]
    assert compared["measure"] == "agreement"
    assert compared["images"] == 3
    for network in compared["networks"]:
        assert 0 <= network["agreement"] <= 1
        assert network["top1"] is None
        assert abs(network["macs"] - found["macs"]) < 0.1 * found["macs"], network
    page = layout.report.read_text()
    assert "Was the search worth it?" in page
    assert all(network["title"] in page for network in compared["networks"])
    assert layout.weights.read_bytes() == student, "what was asked for beside it changes nothing of the student"
    assert read_json(layout.results)["timings"]["baselines"] > 0
    assert "baseline-teacher-shrunk        1/1" in progress_table(run)

    done = {path: path.stat().st_mtime_ns for path in layout.manifest("*").parent.iterdir()}
    complete(run)
    assert {path: path.stat().st_mtime_ns for path in done} == done


def test_without_baselines_the_report_does_not_ask(finished: Run):
    assert read_json(finished.layout.results)["baselines"] is None
    assert "Was the search worth it?" not in finished.layout.report.read_text()


def test_a_run_directory_from_before_there_were_baselines_goes_on(damageable: Run, complete):
    """Settings that its config does not have yet are today's defaults."""
    layout = damageable.layout
    config = damageable.config.model_dump(mode="json")
    del config["baselines"], config["retrain"]["style"]
    layout.config.write_text(yaml.safe_dump(config))
    known = Provenance.read(layout.provenance)
    known.model_copy(update={"config": digest_of_json(config)}).write(layout.provenance)
    done = {path: path.stat().st_mtime_ns for path in layout.manifest("*").parent.iterdir()}
    complete(open_run(damageable.config, damageable.directory))
    assert {path: path.stat().st_mtime_ns for path in done} == done
