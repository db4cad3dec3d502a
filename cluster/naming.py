"""How applications and deployments are called."""

ROUTER_APPLICATION = "router"
ROUTER_DEPLOYMENT = "Router"


def model_deployment_name(model_id: str) -> str:
    """The name that `build_llm_deployment` gives to the deployment of a model."""
    return "ModelServer:" + model_id.replace("/", "--").replace(".", "_")
