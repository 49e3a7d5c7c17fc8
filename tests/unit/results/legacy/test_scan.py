"""Search folders: the experiments found in them, and the files that are read."""

from pathlib import Path

import pytest

from espalier.config import load_study
from espalier.errors import UserError
from espalier.results.legacy import scan as scanning
from espalier.results.legacy.scan import EVALUATION, FILES, GRADIENTS, SearchFolder, scan
from espalier.study.driver import open_study
from espalier.study.legacy import Imports
from espalier.study.paths import Paths
from tests.published import experiment_folder, write, write_model

METHODS = ("taylor", "layerwise", "blockwise")


def scanned(folders: list[Path]) -> list[SearchFolder]:
    return scan([str(folder) for folder in folders], METHODS, ["Qwen"])


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    return write_model(tmp_path, "Qwen")


def test_a_whole_study(folders: list[Path]) -> None:
    found = scanned(folders)
    assert [(one.name, one.method, one.pruning_ratio) for one in found] == [
        ("search_Qwen_30", "taylor", 0.3),
        ("search_Qwen_layerwise_30", "layerwise", 0.3),
        ("search_Qwen_blockwise_30", "blockwise", 0.3),
    ]
    assert [len(one.experiments) for one in found] == [15, 15, 15]
    experiment = found[2].experiments[6]
    assert (experiment.name, experiment.seq_len, experiment.n_samples) == ("blockwise-seq64-n128-p30", 64, 128)
    assert experiment.source == f"{folders[2]}/{experiment_folder(7, 64, 128)}"
    assert experiment.files == FILES
    assert len(found[0].files) == 45


def test_unclear_folders_are_listed(folders: list[Path], tmp_path: Path) -> None:
    (folders[0] / "exp_099_seq64").mkdir()
    (folders[0] / "plots").mkdir()
    (folders[0] / ".cache").mkdir()
    (folders[0] / "exp_results.csv").touch()
    strange = (tmp_path / "search_Qwen_magic_30" / experiment_folder(1, 16, 128)).parent
    (strange / experiment_folder(1, 16, 128)).mkdir(parents=True)
    taylor, other = scanned([folders[0], strange])
    aside = [one for one in taylor.experiments if one.status]
    assert [(one.name, one.status) for one in aside] == [("search_Qwen_30.exp_099_seq64", "unknown")]
    assert "is not of the form exp_" in aside[0].notes[0]
    assert taylor.not_read == ("plots",)
    assert other.method is None
    assert [one.status for one in other.experiments] == ["unknown"]
    assert "its search folder: its name has 'magic'" in other.experiments[0].notes[0]


def test_neither_of_two_folders_with_one_setting_is_used(folders: list[Path]) -> None:
    (folders[1] / experiment_folder(16, 64, 128)).mkdir()
    found = scanned(folders)[1]
    rivals = [one for one in found.experiments if one.status]
    assert [one.status for one in rivals] == ["contradictory", "contradictory"]
    assert rivals[0].notes == (f"claims the setting of {rivals[1].source}; keep one of them",)
    assert len({one.name for one in found.experiments}) == 16


def test_links_that_lead_out_are_not_followed(folders: list[Path], tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    write(outside / EVALUATION, {})
    write(outside / GRADIENTS, {})
    (folders[0] / experiment_folder(77, 8, 8)).symlink_to(outside)
    inner = folders[0] / experiment_folder(1, 16, 128) / GRADIENTS
    inner.unlink()
    inner.symlink_to(outside / GRADIENTS)
    found = {one.folder: one for one in scanned(folders[:1])[0].experiments}
    assert found[experiment_folder(77, 8, 8)].files == ()
    assert len(found[experiment_folder(77, 8, 8)].notes) == 2
    first = found[experiment_folder(1, 16, 128)]
    assert GRADIENTS not in first.files
    assert first.notes == (f"{GRADIENTS}: is a link that leads out of the search folder, not read",)


def test_large_files_are_not_read(folders: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanning, "MAX_BYTES", 600)
    first = scanned(folders[:1])[0].experiments[0]
    assert first.files == (GRADIENTS,)
    assert "at most 600 are read" in first.notes[0]


def config(*models: dict[str, object]) -> dict[str, object]:
    return {"study": "published", "models": list(models)}


def entry(name: str, *folders: object) -> dict[str, object]:
    return {"name": name, "family": name, "kind": "base", "legacy": [str(folder) for folder in folders]}


def test_a_missing_folder_is_refused_with_its_place(folders: list[Path], tmp_path: Path) -> None:
    wrong = config(entry("Qwen", *folders), entry("Llama", folders[0], tmp_path / "search_Llama_20"))
    with pytest.raises(SystemExit, match=r"models\[1\]\.legacy\[1\]: '.*search_Llama_20' is not a folder; give the"):
        open_study(wrong, is_driver=True)
    open_study(wrong, is_driver=False)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("a/search_Qwen_20", "b/search_Qwen_20"), r"models\[0\]\.legacy\[1\]: another folder is named 'search_Qwen_"),
        (("my runs",), r"models\[0\]\.legacy\[0\]: got the name 'my runs'; allowed: letters"),
        (("{x}/search_Qwen_20",), r"models\[0\]\.legacy\[0\]: got '.*\{x\}.*'; braces are Snakemake's wildcards"),
        (("results",), r"models\[0\]\.legacy: no folder holds experiments that can be placed; allowed: search_"),
    ],
)
def test_folders_that_cannot_be_imported_are_refused(names: tuple[str, ...], message: str, tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name / experiment_folder(1, 16, 128)).mkdir(parents=True)
    with pytest.raises(SystemExit, match=message):
        open_study(config(entry("Qwen", *(tmp_path / name for name in names))), is_driver=True)


def test_look_ups(folders: list[Path], tmp_path: Path) -> None:
    write_model(tmp_path / "more", "Llama")
    study = config(entry("Qwen", *folders), entry("Llama", tmp_path / "more/search_Llama_30", folders[1]))
    imports = Imports(load_study(study), Paths("results/published"))
    assert imports.tables[0] == "results/published/legacy/Qwen/search_Qwen_30.parquet"
    assert len(imports.tables) == 5
    assert imports.models_with_structures == ["Qwen", "Llama"]
    (line,) = imports.warnings()
    assert line.startswith("models[1].legacy[1]: ")
    assert line.endswith("search_Qwen_layerwise_30 is named after 'Qwen', another model of this study")

    class Wildcards:
        model, search_folder = "Qwen", "search_Llama_30"

    with pytest.raises(UserError, match="model 'Qwen' has no search folder 'search_Llama_30'; allowed: search_Qwen_30"):
        imports.params(Wildcards())
