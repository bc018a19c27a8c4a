-- Takes back: what each stage did with each batch of the runs that are going on; the sums stay in `runs`.
drop table outcomes;
drop table transforms;
drop table batches;
drop table parts;
