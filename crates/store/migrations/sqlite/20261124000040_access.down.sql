-- Takes back: who may do what, and who did what.
drop table audit;
drop table tokens;
