"""The YAML files. Once installed, `hydra.searchpath=[pkg://my_project_conf]` finds them."""
