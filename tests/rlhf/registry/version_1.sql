BEGIN TRANSACTION;
CREATE TABLE aliases (
	name VARCHAR(64) NOT NULL, 
	alias VARCHAR(64) NOT NULL, 
	version INTEGER NOT NULL, 
	PRIMARY KEY (name, alias), 
	FOREIGN KEY(name, version) REFERENCES artifacts (name, version)
);
INSERT INTO "aliases" VALUES('policy','champion',1);
INSERT INTO "aliases" VALUES('sft','best',1);
CREATE TABLE artifacts (
	id INTEGER NOT NULL, 
	name VARCHAR(64) NOT NULL, 
	version INTEGER NOT NULL, 
	kind VARCHAR(64) NOT NULL, 
	fingerprint VARCHAR(128) NOT NULL, 
	sha256 VARCHAR(64) NOT NULL, 
	created_at VARCHAR(32) NOT NULL, 
	metadata TEXT NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (name, version), 
	UNIQUE (fingerprint)
);
INSERT INTO "artifacts" VALUES(1,'base',1,'base','b','ae7217274fac47edc55c98404a34d3e8364cbc05657f78e0ceec41e771ddab6d','2026-11-21T21:11:20+00:00','{}');
INSERT INTO "artifacts" VALUES(2,'sft',1,'sft','s1','d13b6d3a248bbcbce40575ea403d066978294eaff768cc287c54762d7b9f39ed','2026-11-21T21:11:20+00:00','{"metrics": {"loss": 0.5}}');
INSERT INTO "artifacts" VALUES(3,'sft',2,'sft','s2','ee58084485eb8cd4aa0c079c82ba1d3db43c9a80e6dfca9668e35a8f8dc9f9c2','2026-11-21T21:11:20+00:00','{"note": "Größe"}');
INSERT INTO "artifacts" VALUES(4,'policy',1,'policy','p','c77b8644d2b436a4ec97466b446f166dae7ab3cac1c0e256f3a4f7f60bb793ef','2026-11-21T21:11:21+00:00','{}');
CREATE TABLE parents (
	child_id INTEGER NOT NULL, 
	position INTEGER NOT NULL, 
	role VARCHAR(64) NOT NULL, 
	parent_id INTEGER NOT NULL, 
	PRIMARY KEY (child_id, position), 
	FOREIGN KEY(child_id) REFERENCES artifacts (id), 
	FOREIGN KEY(parent_id) REFERENCES artifacts (id)
);
INSERT INTO "parents" VALUES(2,0,'init',1);
INSERT INTO "parents" VALUES(3,0,'init',1);
INSERT INTO "parents" VALUES(4,0,'init',2);
INSERT INTO "parents" VALUES(4,1,'reference',2);
CREATE TABLE schema (
	version INTEGER NOT NULL
);
INSERT INTO "schema" VALUES(1);
CREATE INDEX ix_parents_parent_id ON parents (parent_id);
COMMIT;
