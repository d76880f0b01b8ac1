"""A run of Prefect -> its page in MLflow, as a link that Prefect's UI shows."""

from prefect.artifacts import create_link_artifact


def show_link(page: str | None) -> None:
    """The address, where a server shows it."""
    if page:
        create_link_artifact(
            page, "This night in MLflow", key="mlflow", description="Parameters, metrics, curves, lineage"
        )
