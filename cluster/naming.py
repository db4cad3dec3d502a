"""How applications and deployments are called, and where data goes unless told otherwise."""

DEFAULT_DATA_DIR = "~/.local/share/dynamic-llm-scheduler"

ROUTER_APPLICATION = "router"
ROUTER_DEPLOYMENT = "Router"


def model_deployment_name(model_id: str) -> str:
    """The name that `build_llm_deployment` gives to the deployment of a model."""
    return "ModelServer:" + model_id.replace("/", "--").replace(".", "_")
