"""How applications and deployments are called, and where data goes by default."""

DEFAULT_DATA_DIR = "~/.local/share/dynamic-llm-scheduler"

AUTO = "auto"
"""The model that clients name to have one chosen for them."""
ROUTER_APPLICATION = "router"
ROUTER_DEPLOYMENT = "Router"
HEAD_RESOURCE = "node:__internal_head__"
"""What Ray gives to the head node alone."""


def application_name(model_id: str) -> str:
    """The Serve application of a model: its id, without `/`, which Serve cannot deploy."""
    return model_id.replace("/", "--")


def model_deployment_name(model_id: str) -> str:
    """The name that `build_llm_deployment` gives to the deployment of a model."""
    return "ModelServer:" + model_id.replace("/", "--").replace(".", "_")
