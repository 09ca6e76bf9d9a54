"""What attribution predicts for a latent that a result does not report, from the file of all latents of its layer."""

from stratalens.files.damaged import READ_ERRORS, damaged, read_table
from stratalens.hookpoint import Hookpoint
from stratalens.report.saved import Result


def latent_attribution(result: Result, hookpoint: Hookpoint, latent: int) -> float | None:
    """Predicted loss without a latent, domain less general, in nats a token on the run's own text.

    Args:
        result: a finished one.
        hookpoint: of the SAE.
        latent: its number.

    Returns:
        The prediction; None where effects were not measured, or the latent fires on no document that was read.

    Raises:
        ConfigError: the file of attributions is damaged.
    """
    own = next((record for record in result.record.effects if record.is_own_text), None)
    name = None if own is None else own.attribution_files.get(hookpoint)
    if name is None:
        return None
    path = result.output_dir / name
    table = read_table(path)
    try:
        found = table.loc[table["feature_number"] == latent, "attribution_difference"].astype("float64")
    except READ_ERRORS as error:
        raise damaged(path, error) from None
    return float(found.iloc[0]) if len(found) else None
