"""Evaluation of tokenizers, voice conversion and speech synthesis: the suites of `vocable eval`, and listening tests.

metrics/       the metrics, a file for each kind
tokenizers/    the tokenizers under test, a file for each kind
suite.py       base class of the suites; each suite is one file:
               reconstruction, slmtokbench, conversion, tts, codes, disentanglement, crosslingual, speakers, longform,
               robustness
runner.py      runs a task on many items in several processes, resumable
scoring.py     scores of one clip, figures of many
statistics.py  intervals and paired differences
summary.py     the common parts of summaries and tables
pairs.py  pictures.py  linear.py  information.py  probe.py  phones.py  windows.py  alignment.py  grouped.py
               parts of single suites
listening/     the listening tests of `vocable listen`
compare.py  diagnose.py
               read finished results
"""
