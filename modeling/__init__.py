"""Session Parquet + feature schema -> a model folder, its metrics, a verdict, recommendations.

session    the events of one user in order: a row of session Parquet
split      the sessions a model is fit on, and the cases that validate and test it: by day, or the last item of each history
case       a history and the item that came next, its target: what a model is measured on
history    the events read before a prediction
layout     where sessions lie in the places of a batch, and which places see which
batch      a layout, what is read at its places, what is asked and the answers
objective  which events are read and which are asked about, in training and in inference
body       vectors of events -> hidden states
head       hidden states -> one prediction and its loss: the next item, or a label
loss       what a prediction of the next item costs
scorer     a model or a baseline as ranking sees it: histories -> a score for every item
part       a body, objective, loss, head, baseline or preset: one a file, found by name, built in or a person's own

Floors, each importing only those below it (import-linter holds it):
stages > service | training > scoring > model > parts > heads | inputs > items | objectives | vocabularies | evaluation
> bodies | losses | features | vectors | presets | batches | splits > attention | sessions | config
"""
