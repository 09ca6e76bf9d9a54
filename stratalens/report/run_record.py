"""`run.json`, the record of a run: one definition by which it is written and read."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import FailFast, Field, model_validator

from stratalens.corpus import Populations, Side
from stratalens.corpus.populations import side_name
from stratalens.corpus.strata import MAX_STRATA
from stratalens.effects.effect_scores import MAX_EFFECT_TEXTS
from stratalens.errors import counted
from stratalens.files.record import MAX_RECORDED_FILES
from stratalens.files.result_names import RECORD_FILE, VALIDATION_NAME
from stratalens.harvest.kept_codes import codes_path
from stratalens.harvest.other_text import other_harvest_path
from stratalens.harvest.store import HarvestFile, harvest_path
from stratalens.hookpoint import NAME_PATTERN, Hookpoint
from stratalens.ranking.layer_facts import LayerFacts
from stratalens.report.codes_record import CodesRecord
from stratalens.report.controls_record import ControlsRecord
from stratalens.report.effect_record import EffectRecord
from stratalens.report.fit_record import FitCheckRecord
from stratalens.report.formats import write_json
from stratalens.report.record_part import RecordPart
from stratalens.report.token_test_record import TokenTestRecord
from stratalens.validation.transfer import MAX_VALIDATIONS

CHECKED = "checked"
"""What a validation says of documents that were in the run, where all could be found and dropped."""
HookpointKey = Annotated[str, Field(pattern=rf"^{NAME_PATTERN}$")]
"""A hookpoint as a key of a JSON object."""
EXECUTION_SETTINGS = ("quiet", "dry_run", "output_dir", "harvest", "workers", "memory_gb", "keep_gb", "csv_bom")
"""Settings that control how the work is done and files are written, and do not affect what is found; only `run.json`
records them."""


class ModelRecord(RecordPart):
    """The language model."""

    name: str
    num_layers: int
    d_model: int
    digest: str


class SaeRecord(RecordPart):
    """The SAE of one hookpoint."""

    hookpoint: str
    """Name of its module, such as `layers.16`."""
    latents: int
    k: int | None
    sha256: str
    """Of the weight file, and of settings beside it that change the latents."""
    path: str = ""
    """Within the folder or repository that was named; empty in results of earlier versions."""
    commit: str = ""
    """Of the Hub repository that it comes from."""


class SideRecord(RecordPart):
    """The documents of one side."""

    documents: int
    discovery_documents: int
    confirmation_documents: int
    kept_rows: int
    empty: int
    too_short: int
    duplicates: int
    on_both_sides: int
    beyond_max_documents: int


class LengthsRecord(RecordPart):
    """How long passages are."""

    max_length: int


class CorpusRecord(RecordPart):
    """The text. Besides these entries it has one `SideRecord` for each side, under the side's name."""

    digest: str
    split: bool
    files: dict[str, list[str]]
    """Name of a side -> its files."""
    lengths: LengthsRecord
    kinds: Annotated[list[str], Field(min_length=1, max_length=MAX_STRATA)] = Field(default_factory=lambda: [""])
    """Kinds of text within which documents are compared; a single one has no name."""
    form_auroc: float | None = None
    """How well the form of a text tells its side, see `corpus.likeness`."""
    __pydantic_extra__: dict[str, SideRecord] = Field(init=False)  # pyright: ignore[reportIncompatibleVariableOverride]


class LayerFactsRecord(RecordPart):
    """What the layer comparison shows besides features."""

    fvu: float | None
    mean_hookpoint_norm: float | None
    dropped_share: float | None


class HarvestRecord(RecordPart):
    """The harvest on disk."""

    keys: dict[HookpointKey, str]


class ValidationRecord(RecordPart):
    """One validation of the reported features on other text. Besides these entries it has the options of the text."""

    name: Annotated[str, Field(pattern=rf"^{VALIDATION_NAME}$")]
    created: str
    digest: str
    """Of the text, without the documents that were in the run."""
    settings: dict[str, Any]
    overlap: str
    """`checked`, or why documents that were in the run could not all be dropped."""
    sides: dict[str, dict[str, int]]
    """Name of a side -> its counts of rows and documents."""
    kinds: Annotated[list[str], Field(min_length=1, max_length=MAX_STRATA)]
    files: dict[str, list[str]]
    """Name of a side -> its files."""
    features: int
    """Reported features that were tested."""
    transferring: int
    """How many of them transfer."""
    rank_correlation: float | None
    """Spearman's correlation of the order of all reported features with their AUROC here."""
    rank_correlation_by_layer: dict[HookpointKey, float | None]
    keys: dict[HookpointKey, str]
    """Hookpoint -> key of its harvest of this text."""
    facts: dict[str, Any]
    """What that harvest depends on."""
    warnings: list[str]

    def describe(self) -> str:
        """One line: how many features transfer, and how alike the orders are."""
        order = "" if self.rank_correlation is None else f"; rank correlation {self.rank_correlation:.2f}"
        counts = f"{self.transferring} of {counted(self.features, 'reported feature')}"
        unchecked = "" if self.overlap == CHECKED else "; not all documents of the run could be left out"
        return f"{self.name}: {counts} transfer{'s' if self.transferring == 1 else ''}{order}{unchecked}"

    @property
    def folder(self) -> str:
        """Name of the folder of its harvest."""
        return validation_folder(self.name)

    @property
    def file_names(self) -> list[str]:
        """Names of its files, relative to the result directory."""
        harvests = [str(other_harvest_path(self.folder, Hookpoint.parse(place))) for place in self.keys]
        return [f"{self.folder}.csv", *harvests]


def validation_folder(name: str) -> str:
    """Name of the folder of a validation, and of its table without the suffix."""
    return f"validation_{name}"


class RunRecord(RecordPart):
    """The content of `run.json`."""

    format: int
    stratalens: str
    created: str
    settings: dict[str, Any]
    model: ModelRecord
    saes: dict[HookpointKey, SaeRecord]
    corpus: CorpusRecord
    self_check: dict[HookpointKey, FitCheckRecord]
    layers: Annotated[dict[HookpointKey, LayerFactsRecord], Field(min_length=1)]
    warnings: list[str]
    missing_parts: dict[str, str] = Field(default_factory=dict)
    """Optional part of the result that failed -> why it was left out."""
    controls: ControlsRecord | None = None
    """None where no documents were held out, and in results of earlier versions."""
    token_test: TokenTestRecord | None = None
    """None where no token test was made."""
    effects: Annotated[list[EffectRecord], Field(max_length=MAX_EFFECT_TEXTS)] = Field(default_factory=list)
    """What removing features does, on each text on which it was measured, in the order in which they were first."""
    passages: int
    tokens: int
    harvest: HarvestRecord
    codes: dict[HookpointKey, CodesRecord] = Field(default_factory=dict)
    """Token-level codes that the result keeps; none after `--no_examples` and in results of earlier versions."""
    seconds: dict[str, float] = Field(default_factory=dict)
    """Stage -> time that it took."""
    peak_memory_bytes: int = 0
    validations: Annotated[list[ValidationRecord], Field(max_length=MAX_VALIDATIONS)] = Field(default_factory=list)
    """Every validation of the result, in the order in which they were first made."""
    files: Annotated[list[str], Field(max_length=MAX_RECORDED_FILES), FailFast()] = Field(default_factory=list)
    """Names of all files of the result but `run.json` itself."""

    @model_validator(mode="after")
    def _agrees(self) -> "RunRecord":
        if not set(self.layers) == set(self.saes) == set(self.harvest.keys) == set(self.self_check):
            raise ValueError("`layers`, `saes`, `self_check` and `harvest` name different layers")
        if not set(self.codes) <= set(self.layers):
            raise ValueError("`codes` names other layers")
        if self.controls is not None and set(self.controls.hookpoints) != set(self.layers):
            raise ValueError("`layers` and `controls` name different layers")
        if self.controls is not None and not set(self.controls.random_keys) <= set(self.layers):
            raise ValueError("`random_keys` of `controls` names other layers")
        if missing := [name for name in self._side_names if name not in self.corpus.__pydantic_extra__]:
            raise ValueError(f"`corpus` has no {missing[0]}")
        if not set(self._side_names) <= set(self.corpus.files):
            raise ValueError("`corpus` lacks the files of a side")
        if len({own.name for own in self.validations}) < len(self.validations):
            raise ValueError("`validations` has two of the same name")
        if len({own.name for own in self.effects}) < len(self.effects):
            raise ValueError("`effects` has two of the same name")
        if not all({*own.layers, *own.attributed, *own.tasks, *own.dense} <= set(self.layers) for own in self.effects):
            raise ValueError("`effects` names other layers")
        return self

    @property
    def domain(self) -> str:
        """Name of the domain."""
        return str(self.settings.get("domain"))

    @property
    def _side_names(self) -> list[str]:
        return [side_name(self.domain, side) for side in Side]

    @property
    def hookpoints(self) -> list[Hookpoint]:
        """The analysed hookpoints."""
        return list(map(Hookpoint.parse, self.layers))

    @property
    def modules(self) -> dict[Hookpoint, str]:
        """Hookpoint -> name of the module that its SAE belongs to."""
        return {hookpoint: self.saes[str(hookpoint)].hookpoint for hookpoint in self.hookpoints}

    @property
    def facts(self) -> dict[Hookpoint, LayerFacts]:
        """Hookpoint -> what the layer comparison shows besides features."""
        facts = {hookpoint: self.layers[str(hookpoint)] for hookpoint in self.hookpoints}
        return {place: LayerFacts(own.fvu, own.mean_hookpoint_norm, own.dropped_share) for place, own in facts.items()}

    @property
    def split(self) -> bool:
        """Whether documents were held out to confirm features."""
        return self.corpus.split

    @property
    def sides(self) -> list[SideRecord]:
        """The documents of each side, by its number."""
        return [self.corpus.__pydantic_extra__[name] for name in self._side_names]

    @property
    def texts(self) -> list[list[str]]:
        """Files of the text of each side, by its number."""
        return [self.corpus.files[name] for name in self._side_names]

    @property
    def populations(self) -> Populations:
        """The populations of the documents."""
        return Populations(tuple(self.corpus.kinds))

    @property
    def shown_settings(self) -> dict[str, Any]:
        """Settings that affect the results."""
        return {name: value for name, value in self.settings.items() if name not in EXECUTION_SETTINGS}

    @property
    def resolved_settings(self) -> dict[str, Any]:
        """The settings with their defaults resolved: all that is needed to repeat the run, except credentials."""
        models = {"base_model": self.model.name, "sae_model": self.settings.get("sae_model") or "embedded"}
        return models | {name: value for name, value in self.shown_settings.items() if name not in models}

    def harvest_files(self, output_dir: Path) -> dict[Hookpoint, HarvestFile]:
        """Hookpoint -> the file of its harvest in an output directory."""
        keys = self.harvest.keys
        return {place: HarvestFile(output_dir / harvest_path(place), keys[str(place)]) for place in self.hookpoints}

    def code_files(self, output_dir: Path) -> dict[Hookpoint, Path]:
        """Hookpoint -> the file of its token-level codes in an output directory, where the result has them."""
        return {place: output_dir / codes_path(place) for place in self.hookpoints if str(place) in self.codes}

    def write(self, directory: Path) -> None:
        """Write `run.json`."""
        write_json(self.model_dump(mode="json"), directory / RECORD_FILE)


def result_files(staging: Path) -> list[str]:
    """Names, relative to `staging`, of all files of a result except the record itself."""
    files = (path for path in staging.rglob("*") if path.is_file() and path.name != RECORD_FILE)
    return sorted(str(path.relative_to(staging)) for path in files)
