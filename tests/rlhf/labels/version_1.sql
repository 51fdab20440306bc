BEGIN TRANSACTION;
CREATE TABLE annotator (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	project_id INTEGER NOT NULL, 
	name TEXT, 
	pseudonym VARCHAR(32) NOT NULL, 
	erased_at VARCHAR(32), 
	UNIQUE (project_id, pseudonym), 
	FOREIGN KEY(project_id) REFERENCES project (id)
);
INSERT INTO "annotator" VALUES(1,1,'Ada','annotator-f3b16dcc98752da7',NULL);
INSERT INTO "annotator" VALUES(2,1,NULL,'annotator-255e484b9370fd07','2026-11-21T17:13:37+00:00');
INSERT INTO "annotator" VALUES(3,1,'Grace','annotator-f25dffcda7daa4a7',NULL);
INSERT INTO "annotator" VALUES(4,2,'Ada','annotator-40a5afb59db6817a',NULL);
CREATE TABLE import_report (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	project_id INTEGER NOT NULL, 
	file TEXT NOT NULL, 
	format VARCHAR(64) NOT NULL, 
	source TEXT, 
	licence TEXT, 
	created_at VARCHAR(32) NOT NULL, 
	report TEXT NOT NULL, 
	FOREIGN KEY(project_id) REFERENCES project (id)
);
INSERT INTO "import_report" VALUES(1,1,'labels.csv','pairwise','the kitchen','MIT','2026-11-21T17:13:37+00:00','{"format": "pairwise", "rows_in": 11, "rows_used": 10, "comparisons": 10, "ties": 3, "quarantined": 1, "duplicates": 0, "reasons": {"unknown label": 1}, "lines": {"unknown label": [12]}, "erased": 0, "annotators": 3, "contradictions": 0, "identical_answers": 0, "splits": {}, "leaked_prompts": 0, "tie_rate": {"value": 0.3, "ci": [0.10779126740630102, 0.6032218525388546], "n": 10}, "left_rate": {"value": 0.42857142857142855, "ci": [0.1582198552514697, 0.7495416354723428], "n": 7}, "longer_rate": {"value": 0.42857142857142855, "ci": [0.1582198552514697, 0.7495416354723428], "n": 7}, "prompt_lengths": {"n": 10, "mean": 21.0, "median": 21, "p95": 21, "longest": 21}, "answer_lengths": {"n": 20, "mean": 11.0, "median": 10, "p95": 12, "longest": 12}}');
INSERT INTO "import_report" VALUES(2,2,'other.jsonl','trl',NULL,NULL,'2026-11-21T17:13:37+00:00','{"format": "trl", "rows_in": 1, "rows_used": 1, "comparisons": 1, "ties": 0, "quarantined": 0, "duplicates": 0, "reasons": {}, "lines": {}, "erased": 0, "annotators": 1, "contradictions": 0, "identical_answers": 0, "splits": {}, "leaked_prompts": 0, "tie_rate": {"value": 0.0, "ci": [0.0, 0.7934506856227626], "n": 1}, "left_rate": null, "longer_rate": {"value": 0.0, "ci": [0.0, 0.7934506856227626], "n": 1}, "prompt_lengths": {"n": 1, "mean": 6.0, "median": 6, "p95": 6, "longest": 6}, "answer_lengths": {"n": 2, "mean": 3.0, "median": 2, "p95": 4, "longest": 4}}');
CREATE TABLE label_event (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	project_id INTEGER NOT NULL, 
	task_id INTEGER NOT NULL, 
	annotator_id INTEGER, 
	import_id INTEGER, 
	kind VARCHAR(8) NOT NULL, 
	choice VARCHAR(8), 
	tie_kind VARCHAR(16), 
	strength FLOAT, 
	attribute TEXT, 
	shown_left VARCHAR(1), 
	seconds FLOAT, 
	reason TEXT, 
	guideline_version VARCHAR(64), 
	time FLOAT, 
	split TEXT, 
	line INTEGER, 
	row_digest BLOB NOT NULL, 
	row_part INTEGER NOT NULL, 
	UNIQUE (project_id, row_digest, row_part), 
	FOREIGN KEY(project_id) REFERENCES project (id), 
	FOREIGN KEY(task_id) REFERENCES task (id), 
	FOREIGN KEY(annotator_id) REFERENCES annotator (id), 
	FOREIGN KEY(import_id) REFERENCES import_report (id)
);
INSERT INTO "label_event" VALUES(1,1,1,1,1,'label','b',NULL,NULL,NULL,'b',NULL,NULL,NULL,NULL,NULL,2,X'E675A6871128107A50CE06223C812542E320EFA2C1C239405526B35FCE943027',0);
INSERT INTO "label_event" VALUES(2,1,1,3,1,'label','tie',NULL,NULL,NULL,'b',NULL,NULL,NULL,NULL,NULL,3,X'1EC7FCBE2DC857AF4F1E253D83B18A3C2E3612ECAD3DD6724491B37CEA0152AF',0);
INSERT INTO "label_event" VALUES(4,1,2,1,1,'label','a',NULL,NULL,NULL,'b',NULL,NULL,NULL,NULL,NULL,5,X'750372E4E748D248F587F4431265E32612B6BD9515798F80FC48D794E0D776B4',0);
INSERT INTO "label_event" VALUES(5,1,2,3,1,'label','b',NULL,NULL,NULL,'b',NULL,NULL,NULL,NULL,NULL,6,X'8762F6681B14FE9B5D3E49DB876A9AB41AA5D8D1CB4DA9C0B9086A695BE114A2',0);
INSERT INTO "label_event" VALUES(7,1,3,1,1,'label','tie',NULL,NULL,NULL,'b',NULL,NULL,NULL,NULL,NULL,8,X'94C7971E4E5A10D6BD38A72EA5C39E9824070CD80C91682B243253A1E267CCB7',0);
INSERT INTO "label_event" VALUES(8,1,3,3,1,'label','a',NULL,NULL,NULL,'b',NULL,NULL,NULL,NULL,NULL,9,X'B2101D317415A354B72B8B26B425B1B1882EC414670CD52FF1D3F118EA8E1EAA',0);
INSERT INTO "label_event" VALUES(10,1,1,1,1,'label','tie',NULL,NULL,NULL,'b',NULL,NULL,NULL,NULL,NULL,11,X'AA4F6970B655D60B87160AEB61E82840EBCEE8BC851E3B761E354CC0B5BD386D',0);
INSERT INTO "label_event" VALUES(11,2,4,4,2,'label','a',NULL,2.0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,1,X'CCDC605B197968C1118C1893015BA7D9A780D4936FBD2912AA9E979EF397C984',0);
CREATE TABLE label_export (
	id INTEGER NOT NULL, 
	project_id INTEGER NOT NULL, 
	digest VARCHAR(64) NOT NULL, 
	format VARCHAR(16) NOT NULL, 
	attribute TEXT, 
	created_at VARCHAR(32) NOT NULL, 
	event_ids TEXT NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (project_id, digest), 
	FOREIGN KEY(project_id) REFERENCES project (id)
);
INSERT INTO "label_export" VALUES(1,1,'d872fb7598816b3b09a2fa2ca3172ca06c517ce349266d3b91ed76c9e32ba4e6','trl',NULL,'2026-11-21T17:13:37+00:00','[[2, 10]]');
INSERT INTO "label_export" VALUES(2,1,'147a2e63f9973cec648a77baf8f98d947af8815bdbf3323e750c7617fb7f9dba','trl',NULL,'2026-11-21T17:13:37+00:00','[[2, 2], [4, 5], [7, 8], [10, 10]]');
CREATE TABLE label_schema (
	version INTEGER NOT NULL
);
INSERT INTO "label_schema" VALUES(1);
CREATE TABLE project (
	id INTEGER NOT NULL, 
	name VARCHAR(64) NOT NULL, 
	pseudonym_key BLOB NOT NULL, 
	created_at VARCHAR(32) NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (name)
);
INSERT INTO "project" VALUES(1,'rice',X'87A627D61B7CC1561FCE17CC1F753770551FC461F4EA1F8FDD17F4D94E74C881','2026-11-21T17:13:37+00:00');
INSERT INTO "project" VALUES(2,'other',X'BB513D092BE625E7B5793170CBED7C11893C8F92C32402AE0A68BC63813A971A','2026-11-21T17:13:37+00:00');
CREATE TABLE quarantined_row (
	id INTEGER NOT NULL, 
	import_id INTEGER NOT NULL, 
	line INTEGER NOT NULL, 
	kind TEXT NOT NULL, 
	digest BLOB, 
	PRIMARY KEY (id), 
	FOREIGN KEY(import_id) REFERENCES import_report (id)
);
INSERT INTO "quarantined_row" VALUES(1,1,12,'unknown label',X'FD7E8070DCC05A5E060205788AB9181579EFF6C3B7D59C3021714F8BECC4C61A');
CREATE TABLE task (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	project_id INTEGER NOT NULL, 
	task_key BLOB NOT NULL, 
	prompt_key BLOB NOT NULL, 
	prompt TEXT NOT NULL, 
	response_a TEXT NOT NULL, 
	response_b TEXT NOT NULL, 
	model_a TEXT, 
	model_b TEXT, 
	UNIQUE (project_id, task_key), 
	FOREIGN KEY(project_id) REFERENCES project (id)
);
INSERT INTO "task" VALUES(1,1,X'6F8E225CC5EEBC7E1964B7E85C05E77EDDD61A50CF7CBD8AB0E4DDAE39EF02BA',X'6C2E6E15E968EB761984B359A809B0DCA7FFC34B78041A39B004F089E44CB5E8','[{"role": "user", "content": "How do I cook rice 0?"}]','In a pan 0','With water 0','n','m');
INSERT INTO "task" VALUES(2,1,X'838EF8AEA5E899B40EDACA954C840FA89310376A39B9D5A0D8A47B261EC29936',X'A930B9F0C5D13BA919DEB25334597779898440B320F61A7848B0D8E429EC1515','[{"role": "user", "content": "How do I cook rice 1?"}]','In a pan 1','With water 1','n','m');
INSERT INTO "task" VALUES(3,1,X'CAA2A9FB2A4880473BF2572693997BCB3B9DEC82B9BFC8C720041CB57BBBEADB',X'D27E4E2974E791D9C162ED6A95B839CD469A00C22997722F69D0387702737941','[{"role": "user", "content": "How do I cook rice 2?"}]','In a pan 2','With water 2','n','m');
INSERT INTO "task" VALUES(4,2,X'EFBE4EABE9614AE432A63FFBEB6CA714B47F68B4E6604F0671C78E6AB5647979',X'3FDFC1BCBB9AA895BCD862E1B50C8844D7C1DFB299F112894D1506EA31EB2BCD','[{"role": "user", "content": "Größe?"}]','ja','nein',NULL,NULL);
CREATE INDEX quarantined_row_digest ON quarantined_row (import_id, digest);
CREATE INDEX label_event_task_annotator ON label_event (task_id, annotator_id);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('import_report',2);
INSERT INTO "sqlite_sequence" VALUES('task',4);
INSERT INTO "sqlite_sequence" VALUES('annotator',4);
INSERT INTO "sqlite_sequence" VALUES('label_event',11);
COMMIT;
