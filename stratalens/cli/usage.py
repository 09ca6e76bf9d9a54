"""What `stratalens --help` prints, and the example of each command."""

USAGE = """usage: stratalens COMMAND [OPTIONS]

Finds which features of a language model belong to a domain, layer by layer, and shows the evidence.

commands, in the usual order of use:
  analyze     run the complete analysis
  show        print everything known about one feature: stratalens show RESULT_DIR LAYER FEATURE
  rank        rank the features of a finished result again, in seconds: stratalens rank RESULT_DIR [OPTIONS]
  label       label the features of a finished result again: stratalens label RESULT_DIR [OPTIONS]
  validate    score the reported features on other texts: stratalens validate RESULT_DIR --name NAME [OPTIONS]
  token_test  do the tokens of a feature alone switch it on? stratalens token_test RESULT_DIR
  effect      what does the model lose without the features? stratalens effect RESULT_DIR
  steer       what does the model write when features are added? stratalens steer RESULT_DIR FEATURE --prompt TEXT
  report      write report.html and the figures of a finished result again: stratalens report RESULT_DIR
  check       do SAEs belong to a model, and where? stratalens check --base_model MODEL --sae_model SAES
  domains     list the built-in domains, or check your own: stratalens domains [PATH ...]

options:
  --version   print the version
  --help      print this; each command lists its own options with --help

To start with the embedded model and the built-in texts, run:
  stratalens analyze --output_dir results
"""
EXAMPLES = {
    "analyze": "stratalens analyze --base_model MODEL --sae_model SAES --layers 4 10-12",
    "show": "stratalens show results 16 163",
    "rank": "stratalens rank results --rank_by auroc --top_n 20",
    "label": "stratalens label results --labeling_endpoint http://localhost:8000/v1",
    "validate": "stratalens validate results --name wire --pair news bank.csv other.csv",
    "token_test": "stratalens token_test results",
    "effect": "stratalens effect results",
    "steer": 'stratalens steer results 28/10 --prompt "My sister said"',
    "report": "stratalens report results",
    "check": "stratalens check --base_model MODEL --sae_model SAES --layers 16",
    "domains": "stratalens domains climate/",
}
