"""The panels of a page: a panel chooses what of a judgement is shown, a chart of `report/charts` draws it.

To add one, write one file here, call it in `study_context` of `report/study_page.py`, and give it a section in
`templates/study.html.jinja`.
"""
