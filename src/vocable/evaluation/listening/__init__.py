"""Listening tests: `vocable listen`.

plan.py  kinds.py      the plan of a test, and the kinds of tests
speech.py  sound.py  stimuli.py
                       what systems make of clips; anchors and loudness; stimuli under random names
design.py              which listener hears what, and where
study.py  platforms.py  page/
                       make a test: the key, files for other platforms, the page
server.py              serve the page, store answers
answers.py  screening.py
                       join answers with the key; leave out careless listeners
inference.py  power.py means, differences and tests; sizes of tests
report.py  predictors.py
                       the report; metrics beside listeners
simulation.py  rehearsal.py
                       simulated studies; simulated answers to a real test
"""
