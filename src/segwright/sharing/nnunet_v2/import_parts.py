"""Write the parts of an imported model and package them: weights, slices, selection, postprocessing, scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segwright.core.errors import MALFORMED, ModelError, PlansError, brief
from segwright.core.files import file_digest, write_json
from segwright.core.labels import Labels
from segwright.core.plans import Plans
from segwright.core.settings import PredictionSettings
from segwright.core.slices import PredictPlan, predict_slice, preprocess_slice, train_slice
from segwright.evaluation.summary import read_summary
from segwright.selection.best import Selection
from segwright.selection.postprocessing import Postprocessing
from segwright.sharing.nnunet_v2.checkpoint_in import Checkpoint
from segwright.sharing.nnunet_v2.import_sources import Import, Source
from segwright.sharing.nnunet_v2.plans_in import with_configuration_of
from segwright.sharing.nnunet_v2.postprocessing_in import rules_of_folder
from segwright.sharing.nnunet_v2.results_folder import result_folder
from segwright.sharing.package import ConfigurationFiles, FoldFiles, package_model

if TYPE_CHECKING:
    from torch import Tensor

_USUAL_FOLDS = 5


def write_model(work: Import, sources: list[Source], folder: Path, output: Path) -> None:
    """Make the parts of a model in ``folder`` and package them."""
    names = {source.model.identifier: source.name for source in sources}
    members = tuple(names[model.identifier] for model in work.choice.members)
    best = "+".join(members)
    parts = [_write_configuration(source, sources, work, folder / source.name) for source in sources]
    lead = next(source for source in sources if source.name == members[0])
    write_json(folder / "plans.json", _merged_plans(lead, sources).to_json(), sort_keys=False)
    write_json(folder / "dataset.json", dict(lead.facts), sort_keys=False)
    scored = result_folder(work.results, work.choice)
    summary = _summary(scored, lead, len(members) == 1)
    evaluated = None if summary is None else read_summary(summary)
    known = {} if evaluated is None else {best: float(evaluated.foreground_mean["Dice"])}
    write_json(folder / "postprocessing.json", _postprocessing(scored, lead.facts).to_json())
    folds = tuple(lead.checkpoints)
    selection = Selection(
        best=best,
        members=members,
        reason=work.choice.reason,
        folds=folds,
        planned_folds=len(folds) if folds == ("all",) else max(_USUAL_FOLDS, len(folds)),
        scores={**known, **_scores(work.choice.scores, sources)},
        num_cases=0 if evaluated is None else len(evaluated.cases),
    )
    write_json(folder / "selection.json", selection.to_json())
    package_model(
        output,
        None,
        plans=folder / "plans.json",
        dataset_json=folder / "dataset.json",
        configurations=parts,
        selection=folder / "selection.json",
        postprocessing=folder / "postprocessing.json",
        prediction=PredictionSettings(),
        summaries={} if summary is None else {best: summary},
        versions={"nnU-Net": "v2"},
        origin=_origin(work, sources),
    )


def _write_configuration(source: Source, sources: Sequence[Source], work: Import, folder: Path) -> ConfigurationFiles:
    plan = _predict_plan(source, sources)
    write_json(folder / "predict.json", plan.to_json())
    folds = []
    for fold, checkpoint in source.checkpoints.items():
        weights, training = folder / f"fold_{fold}.safetensors", folder / f"fold_{fold}.json"
        _write_weights(checkpoint, plan, fold, weights)
        write_json(training, _training_record(source, plan, fold, weights, work))
        folds.append(FoldFiles(fold, weights, training))
    return ConfigurationFiles(source.name, folder / "predict.json", folds)


def _predict_plan(source: Source, sources: Sequence[Source]) -> PredictPlan:
    labels = Labels.from_json(source.facts)
    try:
        preprocess = preprocess_slice(
            source.plans, source.configuration, labels, tuple(source.facts["channel_names"].values())
        )
        plan = predict_slice(source.plans, source.configuration, preprocess)
        PredictPlan.from_json(plan.to_json())  # checks what every later stage relies on
    except MALFORMED as problem:
        where = f"{source.model.folder / 'plans.json'}: configuration {source.configuration}"
        raise PlansError(f"{where}: not valid ({brief(str(problem))})") from problem
    previous = _previous_name(source, sources)
    following = tuple(other.name for other in sources if other.previous == source.model.identifier)
    return replace(plan, configuration=source.name, previous_stage=previous, next_stages=following)


def _previous_name(source: Source, sources: Sequence[Source]) -> str | None:
    """What its previous stage is called in the new model, whichever trainer and plans that names."""
    return next((other.name for other in sources if other.model.identifier == source.previous), None)


def _write_weights(checkpoint: Checkpoint, plan: PredictPlan, fold: str, path: Path) -> None:
    """Check that the weights are those of the planned network, without making one, and write them as float32."""
    import torch

    from segwright.networks.build import build_network
    from segwright.networks.weights import canonical_state, load_into, save_weights

    try:
        weights = checkpoint.load_weights()
        _require_finite(weights)
        state = canonical_state(weights)
        with torch.device("meta"):  # shapes only
            network = build_network(plan.architecture, plan.num_input_channels, plan.labels.num_outputs)
    except (ModelError, PlansError) as error:
        where = "" if str(checkpoint.path) in str(error) else f"{checkpoint.path}: "
        raise ModelError(f"{where}{error}") from error
    try:
        load_into(network, state)
    except ModelError as error:
        raise ModelError(
            f"{checkpoint.path}: the trainer {checkpoint.trainer} trained another network than plans.json describes:"
            f" {str(error).partition(': ')[2].rpartition(';')[0]}; such a model cannot be imported"
        ) from error
    tensors = {name: tensor.to(torch.float32) for name, tensor in state.items()}
    save_weights(path, tensors, {"format": "pt", "configuration": plan.configuration, "fold": fold})


def _require_finite(weights: Mapping[str, Tensor]) -> None:
    broken = [name for name, tensor in weights.items() if not tensor.isfinite().all()]
    if broken:
        raise ModelError(
            f"{len(broken)} of {len(weights)} tensors hold NaN or infinite numbers, because the training diverged;"
            " train this fold again, or choose other folds with --folds"
        )


def _training_record(source: Source, plan: PredictPlan, fold: str, weights: Path, work: Import) -> dict[str, Any]:
    """training.json of an imported fold: what is known of its training, nothing made up."""
    checkpoint = source.checkpoints[fold]
    train = replace(
        train_slice(source.plans, source.configuration, plan.labels),
        configuration=plan.configuration,
        previous_stage=plan.previous_stage,
    )
    return {
        "configuration": plan.configuration,
        "fold": fold,
        "plan": train.to_json(),
        "settings": {},
        "plugins": {},
        "network": plan.architecture.kind,
        "num_inputs": plan.num_input_channels,
        "num_outputs": plan.labels.num_outputs,
        "mirror_axes": list(checkpoint.mirror_axes),
        "epochs": checkpoint.epochs,
        "weights_digest": file_digest(weights),
        "metrics": {"ema_fg_dice": checkpoint.ema_fg_dice},
        "imported": {
            "program": "nnU-Net v2",
            "trainer": checkpoint.trainer,
            "plans": source.plans.plans_name,
            "configuration": source.configuration,
            "checkpoint": checkpoint.path.name,
            "checkpoint_digest": file_digest(checkpoint.path),
            "notes": [note for note in work.notes if note.startswith(f"{source.model.identifier}:")],
        },
    }


def _merged_plans(lead: Source, sources: Sequence[Source]) -> Plans:
    """The first member's plans; where sources have other plans or names, each with an entry that needs no other."""
    plans = lead.plans
    previous = {source.name: _previous_name(source, sources) for source in sources}
    if any(
        (source.plans, source.configuration, source.previous_stage) != (plans, source.name, previous[source.name])
        for source in sources
    ):
        for source in sources:
            plans = with_configuration_of(plans, source.plans, source.configuration, source.name, previous[source.name])
    return plans


def _summary(scored: Path | None, lead: Source, is_single: bool) -> Path | None:
    """The out-of-fold evaluation of the choice: of all folds together, or of the only one."""
    if scored is not None and (scored / "summary.json").is_file():
        return scored / "summary.json"
    alone = next(iter(lead.checkpoints))
    path = lead.model.folder / f"fold_{alone}" / "validation" / "summary.json"
    return path if is_single and len(lead.checkpoints) == 1 and alone != "all" and path.is_file() else None


def _postprocessing(scored: Path | None, facts: Mapping[str, Any]) -> Postprocessing:
    rules = None if scored is None else rules_of_folder(scored)
    if rules is None:
        return Postprocessing((), "nnU-Net's results hold no postprocessing for this choice.")
    assert scored is not None
    known = {0, *Labels.from_json(facts).all_labels}
    unknown = sorted({value for rule in rules for value in rule.values} - known)
    if unknown:
        raise ModelError(f"{scored}: postprocesses the labels {unknown}, which dataset.json does not have")
    found = "" if rules else " It found none that helps."
    return Postprocessing(rules, f"Determined by nnU-Net v2 ({scored.name}).{found}")


def _scores(scores: Mapping[str, float], sources: Sequence[Source]) -> dict[str, float]:
    """nnU-Net's candidates under the names of the new model, others under nnU-Net's."""
    names = {source.model.identifier: source.name for source in sources}
    renamed = {}
    for identifier, score in scores.items():
        parts = identifier.split("___")
        members = parts[1:-1] if parts[0] == "ensemble" else [identifier]
        known = all(member in names for member in members)
        renamed["+".join(names[member] for member in members) if known else identifier] = score
    return renamed


def _origin(work: Import, sources: Sequence[Source]) -> list[str]:
    """Lines of the model card."""
    lines = []
    for source in sources:
        files = sorted({checkpoint.path.name for checkpoint in source.checkpoints.values()})
        lines.append(
            f"{source.name}: trainer {source.first.trainer}, plans {source.plans.plans_name}, configuration"
            f" {source.configuration}, planner {source.plans.planner}, {' and '.join(files)}"
        )
    return [
        "Trained with nnU-Net v2 and imported; the weights are unchanged. nnU-Net sums tiles in float16, segwright in"
        " float32, so single voxels can differ.",
        *lines,
        *work.notes,
    ]
