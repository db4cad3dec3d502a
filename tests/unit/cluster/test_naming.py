from cluster.naming import model_deployment_name


def test_the_name_is_that_of_ray_serve_llm() -> None:
    assert model_deployment_name("org/phi-3.5") == "ModelServer:org--phi-3_5"
