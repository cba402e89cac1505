BEGIN TRANSACTION;
CREATE TABLE _sqlx_migrations (
    version BIGINT PRIMARY KEY,
    description TEXT NOT NULL,
    installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    success BOOLEAN NOT NULL,
    checksum BLOB NOT NULL,
    execution_time BIGINT NOT NULL
);
INSERT INTO "_sqlx_migrations" VALUES(1,'records','2026-11-26 20:14:24',1,X'6C78490B831C6CF62E24106A40E6B57584AB70EF2E5A83D8650A5D7F21F47220038F7C4331CB1AA4C1E74216C059566E',4418241);
INSERT INTO "_sqlx_migrations" VALUES(2,'trace','2026-11-26 20:14:24',1,X'8D6E3D04BDE71BB21F5FA304F8CDC5AD25543647809BC1AF2FA6038F7FA6E808BA18608F373ECBB0629FA9E58BC78F4C',3029621);
INSERT INTO "_sqlx_migrations" VALUES(3,'versions','2026-11-26 20:14:24',1,X'4B5967DE4967F096713DC249415CE8E7566D429DE485D030EDD26D7CE5D1FFB3B79EB3BAEDDA6F9C52832F15F235C0F1',3956520);
CREATE TABLE base_models (
    name TEXT PRIMARY KEY NOT NULL,
    manifest_sha256 TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
CREATE TABLE completions (
    key BLOB PRIMARY KEY NOT NULL,
    text TEXT NOT NULL,
    finish_reason TEXT NOT NULL CHECK (finish_reason IN ('stop', 'length', 'content_filter')),
    model TEXT NOT NULL,
    tokens_in INTEGER NOT NULL,
    tokens_out INTEGER NOT NULL,
    money_micros INTEGER NOT NULL,
    seconds REAL NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
INSERT INTO "completions" VALUES(X'35BC8C39EF0386B241F70CC7EB3FB59FB57B000EBE47F46A8BD816ADEF4CCFD6',' There are 5 boxes with 5 pens each, so we multiply. The answer is (5 * 5).','stop','fake',100,20,0,0.00739346,1795724064775);
INSERT INTO "completions" VALUES(X'41638EB9EDA46988D4EB12B1A839C29CF167CECD3C5593F35021DED7C46B6D9A',' There are 4 boxes with 4 pens each, so we multiply. The answer is (4 * 4).','stop','fake',100,20,0,0.010464138,1795724064775);
INSERT INTO "completions" VALUES(X'CF478B542C1A650148914380045D5011EFA757A78804DD1C72EEE3191F1A818A',' There are 2 boxes with 2 pens each, so we multiply. The answer is (2 * 2).','stop','fake',100,20,0,0.012181782,1795724064775);
INSERT INTO "completions" VALUES(X'CE2B9F5ECCE0A1B847A4A265AC2A98119B83791D7E2981FF0D227810400A5723',' There are 3 boxes with 3 pens each, so we multiply. The answer is (3 * 3).','stop','fake',100,20,0,0.011611077,1795724064775);
INSERT INTO "completions" VALUES(X'88B85F0EC84D11876C04CE417FE789D02791640A3F32A24206595E5F681E528C',' There are 4 boxes with 4 pens each, so we multiply. The answer is (4 * 4).','stop','fake',100,20,0,0.01249682,1795724064775);
INSERT INTO "completions" VALUES(X'AB3E5EC741CC879B1D491297C3199A6370935245B55E31BBAE1513AB99313EF9',' There are 2 boxes with 2 pens each, so we multiply. The answer is (2 * 2).','stop','fake',100,20,0,0.015165728,1795724064775);
INSERT INTO "completions" VALUES(X'3002B443B9F93B86EF914C35862267844BFACBD52D41AA2E840EB2D1C16A8B31',' There are 3 boxes with 3 pens each, so we multiply. The answer is (3 * 3).','stop','fake',100,20,0,0.014181102,1795724064775);
INSERT INTO "completions" VALUES(X'05B955DB2822E9CE15BD0C90D08DE9A404197846E4F4BED9288704F866C163F5',' There are 6 boxes with 6 pens each, so we multiply. The answer is (6 * 6).','stop','fake',100,20,0,0.007795761,1795724064775);
INSERT INTO "completions" VALUES(X'366E30649ED4055E280A4CCE96BF1699EE45CF1E1E2B5C8FF5C11A6C9DBE2930',' There are 7 boxes with 7 pens each, so we multiply. The answer is (7 * 7).','stop','fake',100,20,0,0.00404205,1795724064775);
INSERT INTO "completions" VALUES(X'CBB27140DB1987D1BD8B830BB720B52FA79EEF34894C07AF10524228BDBDE4AE',' There are 7 boxes with 7 pens each, so we multiply. The answer is (7 * 7).','stop','fake',100,20,0,0.006296384,1795724064775);
INSERT INTO "completions" VALUES(X'820B0BD09C12942927C8D29EE4284ECD2295C1A5C5503A7CA78E7AEC4604DA1A',' There are 6 boxes with 6 pens each, so we multiply. The answer is (6 * 6).','stop','fake',100,20,0,0.009024362,1795724064775);
INSERT INTO "completions" VALUES(X'3400FF5BE27E4933CA79949F9AFAA1ADE9F8FF454181F455CD1CBC72BF00F608',' There are 30 boxes with 2 pens each, so we multiply. The answer is (30 * 2).','stop','fake',100,20,0,0.003590818,1795724064775);
INSERT INTO "completions" VALUES(X'9CCF04ED2A9C2DAACE7C8F95F3D5CB08236F273DFFD198024E48361F4D52B76E',' There are 32 boxes with 4 pens each, so we multiply. The answer is (32 * 4).','stop','fake',100,20,0,0.004408222,1795724064775);
INSERT INTO "completions" VALUES(X'B7398D933EBB2C823F24CE87E0DC1B7308C45DBF332C968D7A963E3A4573CF4A',' There are 31 boxes with 3 pens each, so we multiply. The answer is (31 * 3).','stop','fake',100,20,0,0.004549506,1795724064775);
INSERT INTO "completions" VALUES(X'0C5B26D00D4A81085C8C8C87055BB8B740D69FBA75CBB27103F8341434BF1581',' There are 5 boxes with 5 pens each, so we multiply. The answer is (5 * 5).','stop','fake',100,20,0,1.023156061,1795724065795);
CREATE TABLE datasets (
    id BLOB PRIMARY KEY NOT NULL,
    request_id BLOB NOT NULL UNIQUE,
    name TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('staged', 'committed')),
    rows INTEGER NOT NULL DEFAULT 0,
    rows_train INTEGER NOT NULL DEFAULT 0,
    rows_validation INTEGER NOT NULL DEFAULT 0,
    rows_test INTEGER NOT NULL DEFAULT 0,
    rows_labelled INTEGER NOT NULL DEFAULT 0,
    fingerprint TEXT NOT NULL DEFAULT '',
    created_at INTEGER NOT NULL
) STRICT;
INSERT INTO "datasets" VALUES(X'01A2197EB7C4706D927AA39FC741859A',X'CA5F5A78771A853DA170B564AFF17298','boxes','committed',11,6,2,3,11,'6dcd1fd960e92505cc1f2f4ff1c6b934d7a7e9c085342c955c58ed06afbf65a9',1795724064708);
CREATE TABLE distillations (
    id BLOB PRIMARY KEY NOT NULL,
    request_id BLOB NOT NULL UNIQUE,
    name TEXT NOT NULL,
    dataset_id BLOB NOT NULL, -- an ended job outlives its dataset
    spec TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN
        ('queued', 'harvesting', 'training', 'evaluating', 'succeeded', 'failed', 'cancelled', 'paused')),
    reason TEXT NOT NULL DEFAULT '',
    resume_state TEXT CHECK (resume_state IN ('queued', 'harvesting', 'training', 'evaluating')),
    run_id BLOB,
    model_id BLOB,
    teacher_accuracy TEXT,
    ledger_fingerprint TEXT NOT NULL DEFAULT '',
    harvest_seconds REAL NOT NULL DEFAULT 0,
    train_seconds REAL NOT NULL DEFAULT 0,
    evaluate_seconds REAL NOT NULL DEFAULT 0,
    driver TEXT NOT NULL DEFAULT '',
    driver_until INTEGER NOT NULL DEFAULT 0,
    calls INTEGER NOT NULL DEFAULT 0,
    cache_hits INTEGER NOT NULL DEFAULT 0,
    calls_paid_twice INTEGER NOT NULL DEFAULT 0,
    tokens_in INTEGER NOT NULL DEFAULT 0,
    tokens_out INTEGER NOT NULL DEFAULT 0,
    money_micros INTEGER NOT NULL DEFAULT 0,
    prompts_reserved INTEGER NOT NULL DEFAULT 0,
    tokens_reserved INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
, traceparent TEXT NOT NULL DEFAULT '') STRICT;
INSERT INTO "distillations" VALUES(X'01A2197EB7D170ABB180F7CE4BDC7E73',X'B39C57B3D2A88A25B7A63E61A37EA4EC','boxes',X'01A2197EB7C4706D927AA39FC741859A','{"name":"boxes","task":{"name":"equation","instruction":"You solve word problems. Reason in one or two short sentences, then end with: The answer is (expression).","template":"{% for exemplar in exemplars -%}\nQ: {{ exemplar.input }}\nA: {{ exemplar.rationale }} The answer is {{ exemplar.label }}.\n\n{% endfor -%}\nQ: {{ example.input }}\n{% if hint is defined and hint -%}\nHint: the correct answer is {{ hint }}.\n{% endif -%}\nA:","exemplars":[{"input":"84 pupils ride in 2 buses, the same number in each. How many pupils are in one bus?","choices":[],"premise":null,"hypothesis":null,"rationale":"We share 84 pupils equally over 2 buses, so we divide.","label":"(84 / 2)"},{"input":"Nora baked 45 rolls in the morning and 18 in the evening. Then she sold 20. How many rolls are left?","choices":[],"premise":null,"hypothesis":null,"rationale":"We put 45 rolls and 18 rolls together, so we add. We take 20 sold rolls away, so we subtract.","label":"(45 + 18 - 20)"},{"input":"A pack holds 6 cans and costs 9 dollars. How many dollars do 4 packs cost?","choices":[],"premise":null,"hypothesis":null,"rationale":"We pay 9 dollars for each of 4 packs, so we multiply.","label":"(4 * 9)"}],"stop":["\nQ:"],"answer":{"marker":"The answer is","shape":"expression"},"labels":"open","metric":"equation","tokens_max":128},"teacher":{"source":{"profile":"local"},"rows":null,"samples":2,"temperature":0.7,"top_p":1.0,"tokens_max":128,"evaluate":true,"budget":{"prompts":null,"tokens":null,"money_micros":null}},"judging":{"agree":true,"hint":false,"vote":false,"label":"gold"},"start":{"scratch":{"size":"tiny","vocabulary":300}},"training":{"objective":"step_by_step","alpha":0.5,"learning_rate":0.001,"schedule":"cosine","warmup_steps":0,"steps":12,"batch_examples":4,"batch_tokens_max":16384,"input_tokens_max":1024,"target_tokens_max":256,"weight_decay":0.01,"clip_norm":1.0,"dropout":0.0,"evaluate_every_steps":4,"patience":null,"holdout_fraction":0.1,"checkpoint_every_steps":4,"seed":0,"precision":"auto"}}','succeeded','',NULL,X'01A2197EBC1070D2B0DE1C8204146DCF',X'01A2197F16D6710B886DC9B435FB8AA0','{"rows":3,"correct":3,"parsed":3,"low":1.0,"high":1.0}','847b9e9318d41f66ff0237c19e05899ad9db8a527572078b745c960338a27ad5',1.072,13.878747337,3.06404917,'harvester-28512-1795724064701',0,15,0,0,1500,300,0,0,0,1795724064721,1795724089044,'');
CREATE TABLE events (
    distillation_id BLOB NOT NULL REFERENCES distillations (id) ON DELETE CASCADE,
    sequence INTEGER NOT NULL,
    at INTEGER NOT NULL,
    kind TEXT NOT NULL,
    PRIMARY KEY (distillation_id, sequence)
) STRICT, WITHOUT ROWID;
INSERT INTO "events" VALUES(X'01A2197EB7D170ABB180F7CE4BDC7E73',1,1795724064721,'{"kind":"state_changed","from":null,"to":"queued","reason":""}');
INSERT INTO "events" VALUES(X'01A2197EB7D170ABB180F7CE4BDC7E73',2,1795724064734,'{"kind":"state_changed","from":"queued","to":"harvesting","reason":""}');
INSERT INTO "events" VALUES(X'01A2197EB7D170ABB180F7CE4BDC7E73',3,1795724065807,'{"kind":"teacher_measured","accuracy":{"rows":3,"correct":3,"parsed":3,"low":1.0,"high":1.0}}');
INSERT INTO "events" VALUES(X'01A2197EB7D170ABB180F7CE4BDC7E73',4,1795724065808,'{"kind":"state_changed","from":"harvesting","to":"training","reason":""}');
INSERT INTO "events" VALUES(X'01A2197EB7D170ABB180F7CE4BDC7E73',5,1795724067661,'{"kind":"training_progress","run":"01a2197e-bc10-70d2-b0de-1c8204146dcf","step":1,"steps":12,"metrics":[["learning_rate",0.001],["gradient_norm",4.405629634857178],["examples_per_second",1.2140448197837208],["loss_label",4.232807636260986],["loss_rationale",4.611043453216553]]}');
INSERT INTO "events" VALUES(X'01A2197EB7D170ABB180F7CE4BDC7E73',6,1795724068822,'{"kind":"training_progress","run":"01a2197e-bc10-70d2-b0de-1c8204146dcf","step":4,"steps":12,"metrics":[["learning_rate",0.0008535533905932737],["gradient_norm",2.3415966033935547],["examples_per_second",8.60289886773024],["loss_label",2.407379150390625],["loss_rationale",3.4372186064720154]]}');
INSERT INTO "events" VALUES(X'01A2197EB7D170ABB180F7CE4BDC7E73',7,1795724071540,'{"kind":"evaluated","run":"01a2197e-bc10-70d2-b0de-1c8204146dcf","step":4,"split":"validation","accuracy":{"rows":2,"correct":0,"parsed":2,"low":0.0,"high":0.0}}');
INSERT INTO "events" VALUES(X'01A2197EB7D170ABB180F7CE4BDC7E73',8,1795724071540,'{"kind":"training_progress","run":"01a2197e-bc10-70d2-b0de-1c8204146dcf","step":4,"steps":12,"metrics":[["validation_accuracy",0.0]]}');
INSERT INTO "events" VALUES(X'01A2197EB7D170ABB180F7CE4BDC7E73',9,1795724072627,'{"kind":"evaluated","run":"01a2197e-bc10-70d2-b0de-1c8204146dcf","step":8,"split":"validation","accuracy":{"rows":2,"correct":0,"parsed":2,"low":0.0,"high":0.0}}');
INSERT INTO "events" VALUES(X'01A2197EB7D170ABB180F7CE4BDC7E73',10,1795724072627,'{"kind":"training_progress","run":"01a2197e-bc10-70d2-b0de-1c8204146dcf","step":8,"steps":12,"metrics":[["validation_accuracy",0.0]]}');
INSERT INTO "events" VALUES(X'01A2197EB7D170ABB180F7CE4BDC7E73',11,1795724076430,'{"kind":"training_progress","run":"01a2197e-bc10-70d2-b0de-1c8204146dcf","step":10,"steps":12,"metrics":[["learning_rate",0.00014644660940672628],["gradient_norm",2.0106887817382812],["examples_per_second",2.3683746278144504],["loss_label",1.5503575205802917],["loss_rationale",2.3765876293182373]]}');
INSERT INTO "events" VALUES(X'01A2197EB7D170ABB180F7CE4BDC7E73',12,1795724084996,'{"kind":"training_progress","run":"01a2197e-bc10-70d2-b0de-1c8204146dcf","step":11,"steps":12,"metrics":[["learning_rate",0.00006698729810778065],["gradient_norm",1.8961509466171265],["examples_per_second",0.8096239192129921],["loss_label",0.9913823008537292],["loss_rationale",2.2177826166152954]]}');
INSERT INTO "events" VALUES(X'01A2197EB7D170ABB180F7CE4BDC7E73',13,1795724085893,'{"kind":"evaluated","run":"01a2197e-bc10-70d2-b0de-1c8204146dcf","step":12,"split":"validation","accuracy":{"rows":2,"correct":0,"parsed":2,"low":0.0,"high":0.0}}');
INSERT INTO "events" VALUES(X'01A2197EB7D170ABB180F7CE4BDC7E73',14,1795724085894,'{"kind":"training_progress","run":"01a2197e-bc10-70d2-b0de-1c8204146dcf","step":12,"steps":12,"metrics":[["validation_accuracy",0.0]]}');
INSERT INTO "events" VALUES(X'01A2197EB7D170ABB180F7CE4BDC7E73',15,1795724085982,'{"kind":"state_changed","from":"training","to":"evaluating","reason":""}');
INSERT INTO "events" VALUES(X'01A2197EB7D170ABB180F7CE4BDC7E73',16,1795724089011,'{"kind":"evaluated","run":"01a2197e-bc10-70d2-b0de-1c8204146dcf","step":4,"split":"test","accuracy":{"rows":3,"correct":0,"parsed":3,"low":0.0,"high":0.0}}');
INSERT INTO "events" VALUES(X'01A2197EB7D170ABB180F7CE4BDC7E73',17,1795724089044,'{"kind":"published","model":"01a2197f-16d6-710b-886d-c9b435fb8aa0","name":"boxes","version":1}');
INSERT INTO "events" VALUES(X'01A2197EB7D170ABB180F7CE4BDC7E73',18,1795724089044,'{"kind":"state_changed","from":"evaluating","to":"succeeded","reason":""}');
CREATE TABLE examples (
    dataset_id BLOB NOT NULL REFERENCES datasets (id) ON DELETE CASCADE,
    row_index INTEGER NOT NULL,
    split TEXT NOT NULL CHECK (split IN ('train', 'validation', 'test')),
    key TEXT,
    labelled INTEGER NOT NULL CHECK (labelled IN (0, 1)),
    answered INTEGER NOT NULL CHECK (answered IN (0, 1)),
    example TEXT NOT NULL,
    PRIMARY KEY (dataset_id, row_index)
) STRICT, WITHOUT ROWID;
INSERT INTO "examples" VALUES(X'01A2197EB7C4706D927AA39FC741859A',0,'train',NULL,1,0,'{"split":"train","input":"There are 2 boxes with 2 pens in each. How many pens are there?","label":"(2 * 2)"}');
INSERT INTO "examples" VALUES(X'01A2197EB7C4706D927AA39FC741859A',1,'train',NULL,1,0,'{"split":"train","input":"There are 3 boxes with 3 pens in each. How many pens are there?","label":"(3 * 3)"}');
INSERT INTO "examples" VALUES(X'01A2197EB7C4706D927AA39FC741859A',2,'train',NULL,1,0,'{"split":"train","input":"There are 4 boxes with 4 pens in each. How many pens are there?","label":"(4 * 4)"}');
INSERT INTO "examples" VALUES(X'01A2197EB7C4706D927AA39FC741859A',3,'train',NULL,1,0,'{"split":"train","input":"There are 5 boxes with 5 pens in each. How many pens are there?","label":"(5 * 5)"}');
INSERT INTO "examples" VALUES(X'01A2197EB7C4706D927AA39FC741859A',4,'train',NULL,1,0,'{"split":"train","input":"There are 6 boxes with 6 pens in each. How many pens are there?","label":"(6 * 6)"}');
INSERT INTO "examples" VALUES(X'01A2197EB7C4706D927AA39FC741859A',5,'train',NULL,1,0,'{"split":"train","input":"There are 7 boxes with 7 pens in each. How many pens are there?","label":"(7 * 7)"}');
INSERT INTO "examples" VALUES(X'01A2197EB7C4706D927AA39FC741859A',6,'validation',NULL,1,0,'{"split":"validation","input":"There are 20 boxes with 2 pens in each. How many pens are there?","label":"(20 * 2)"}');
INSERT INTO "examples" VALUES(X'01A2197EB7C4706D927AA39FC741859A',7,'validation',NULL,1,0,'{"split":"validation","input":"There are 21 boxes with 3 pens in each. How many pens are there?","label":"(21 * 3)"}');
INSERT INTO "examples" VALUES(X'01A2197EB7C4706D927AA39FC741859A',8,'test',NULL,1,0,'{"split":"test","input":"There are 30 boxes with 2 pens in each. How many pens are there?","label":"(30 * 2)"}');
INSERT INTO "examples" VALUES(X'01A2197EB7C4706D927AA39FC741859A',9,'test',NULL,1,0,'{"split":"test","input":"There are 31 boxes with 3 pens in each. How many pens are there?","label":"(31 * 3)"}');
INSERT INTO "examples" VALUES(X'01A2197EB7C4706D927AA39FC741859A',10,'test',NULL,1,0,'{"split":"test","input":"There are 32 boxes with 4 pens in each. How many pens are there?","label":"(32 * 4)"}');
CREATE TABLE metrics (
    run_id BLOB NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    step INTEGER NOT NULL,
    name TEXT NOT NULL,
    value REAL NOT NULL,
    PRIMARY KEY (run_id, step, name)
) STRICT, WITHOUT ROWID;
INSERT INTO "metrics" VALUES(X'01A2197EBC1070D2B0DE1C8204146DCF',1,'examples_per_second',1.21404481978372080774e+00);
INSERT INTO "metrics" VALUES(X'01A2197EBC1070D2B0DE1C8204146DCF',1,'gradient_norm',4.40562963485717773437e+00);
INSERT INTO "metrics" VALUES(X'01A2197EBC1070D2B0DE1C8204146DCF',1,'learning_rate',0.001);
INSERT INTO "metrics" VALUES(X'01A2197EBC1070D2B0DE1C8204146DCF',1,'loss_label',4.23280763626098632812e+00);
INSERT INTO "metrics" VALUES(X'01A2197EBC1070D2B0DE1C8204146DCF',1,'loss_rationale',4.61104345321655273437e+00);
INSERT INTO "metrics" VALUES(X'01A2197EBC1070D2B0DE1C8204146DCF',4,'examples_per_second',8.60289886773024);
INSERT INTO "metrics" VALUES(X'01A2197EBC1070D2B0DE1C8204146DCF',4,'gradient_norm',2.3415966033935546875e+00);
INSERT INTO "metrics" VALUES(X'01A2197EBC1070D2B0DE1C8204146DCF',4,'learning_rate',8.53553390593273712642e-04);
INSERT INTO "metrics" VALUES(X'01A2197EBC1070D2B0DE1C8204146DCF',4,'loss_label',2.407379150390625e+00);
INSERT INTO "metrics" VALUES(X'01A2197EBC1070D2B0DE1C8204146DCF',4,'loss_rationale',3.43721860647201538085e+00);
INSERT INTO "metrics" VALUES(X'01A2197EBC1070D2B0DE1C8204146DCF',4,'validation_accuracy',0.0);
INSERT INTO "metrics" VALUES(X'01A2197EBC1070D2B0DE1C8204146DCF',8,'validation_accuracy',0.0);
INSERT INTO "metrics" VALUES(X'01A2197EBC1070D2B0DE1C8204146DCF',10,'examples_per_second',2.36837462781445040604e+00);
INSERT INTO "metrics" VALUES(X'01A2197EBC1070D2B0DE1C8204146DCF',10,'gradient_norm',2.01068878173828125e+00);
INSERT INTO "metrics" VALUES(X'01A2197EBC1070D2B0DE1C8204146DCF',10,'learning_rate',1.46446609406726281068e-04);
INSERT INTO "metrics" VALUES(X'01A2197EBC1070D2B0DE1C8204146DCF',10,'loss_label',1.55035752058029174804e+00);
INSERT INTO "metrics" VALUES(X'01A2197EBC1070D2B0DE1C8204146DCF',10,'loss_rationale',2.37658762931823730468e+00);
INSERT INTO "metrics" VALUES(X'01A2197EBC1070D2B0DE1C8204146DCF',11,'examples_per_second',8.09623919212992149141e-01);
INSERT INTO "metrics" VALUES(X'01A2197EBC1070D2B0DE1C8204146DCF',11,'gradient_norm',1.89615094661712646484e+00);
INSERT INTO "metrics" VALUES(X'01A2197EBC1070D2B0DE1C8204146DCF',11,'learning_rate',6.6987298107780649122e-05);
INSERT INTO "metrics" VALUES(X'01A2197EBC1070D2B0DE1C8204146DCF',11,'loss_label',9.91382300853729248046e-01);
INSERT INTO "metrics" VALUES(X'01A2197EBC1070D2B0DE1C8204146DCF',11,'loss_rationale',2.21778261661529541015e+00);
INSERT INTO "metrics" VALUES(X'01A2197EBC1070D2B0DE1C8204146DCF',12,'validation_accuracy',0.0);
CREATE TABLE models (
    id BLOB PRIMARY KEY NOT NULL,
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    distillation_id BLOB NOT NULL,
    run_id BLOB NOT NULL UNIQUE,
    path TEXT NOT NULL,
    manifest_sha256 TEXT NOT NULL,
    parameters INTEGER NOT NULL,
    validation TEXT,
    test TEXT,
    created_at INTEGER NOT NULL, traceparent TEXT NOT NULL DEFAULT '',
    UNIQUE (name, version)
) STRICT;
INSERT INTO "models" VALUES(X'01A2197F16D6710B886DC9B435FB8AA0','boxes',1,X'01A2197EB7D170ABB180F7CE4BDC7E73',X'01A2197EBC1070D2B0DE1C8204146DCF','runs/01a2197e-bc10-70d2-b0de-1c8204146dcf/2/12-model','3e6753c772184c3170fab1ca9c75ab6fd496c6ca5f9526f539c35322998dc4ad',205824,'{"rows":2,"correct":0,"parsed":2,"low":0.0,"high":0.0}','{"rows":3,"correct":0,"parsed":3,"low":0.0,"high":0.0}',1795724089044,'');
CREATE TABLE outbox (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    prompt_id BLOB NOT NULL UNIQUE REFERENCES prompts (id) ON DELETE CASCADE
) STRICT;
CREATE TABLE prompts (
    id BLOB PRIMARY KEY NOT NULL,
    distillation_id BLOB NOT NULL REFERENCES distillations (id) ON DELETE CASCADE,
    row_index INTEGER NOT NULL,
    sample INTEGER NOT NULL,
    hinted INTEGER NOT NULL CHECK (hinted IN (0, 1)),
    purpose TEXT NOT NULL CHECK (purpose IN ('train', 'evaluate')),
    key BLOB NOT NULL,
    tokens_reserved INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'leased', 'answered', 'parked', 'skipped')),
    worker TEXT NOT NULL DEFAULT '',
    lease_until INTEGER NOT NULL DEFAULT 0,
    reserved INTEGER NOT NULL DEFAULT 0 CHECK (reserved IN (0, 1)),
    attempt INTEGER NOT NULL DEFAULT 0,
    failures INTEGER NOT NULL DEFAULT 0,
    error TEXT NOT NULL DEFAULT '',
    rationale TEXT NOT NULL DEFAULT '',
    label TEXT,
    parse_reason TEXT CHECK (parse_reason IN
        ('no_answer', 'truncated', 'refused', 'empty_rationale', 'label_not_in_set', 'disagrees', 'outvoted',
        'no_majority')),
    verdict TEXT CHECK (verdict IN ('unjudged', 'accepted', 'rejected')),
    reason TEXT CHECK (reason IN
        ('no_answer', 'truncated', 'refused', 'empty_rationale', 'label_not_in_set', 'disagrees', 'outvoted',
        'no_majority')),
    weight REAL NOT NULL DEFAULT 1,
    UNIQUE (distillation_id, row_index, sample, hinted, purpose)
) STRICT;
INSERT INTO "prompts" VALUES(X'01A2197EB7DC73279A0ED7E8A8D454AE',X'01A2197EB7D170ABB180F7CE4BDC7E73',0,0,0,'train',X'CF478B542C1A650148914380045D5011EFA757A78804DD1C72EEE3191F1A818A',313,'answered','',1795724094740,0,1,0,'','There are 2 boxes with 2 pens each, so we multiply.','(2 * 2)',NULL,'accepted',NULL,1.0);
INSERT INTO "prompts" VALUES(X'01A2197EB7DC73279A0ED7E995F74E27',X'01A2197EB7D170ABB180F7CE4BDC7E73',0,1,0,'train',X'AB3E5EC741CC879B1D491297C3199A6370935245B55E31BBAE1513AB99313EF9',313,'answered','',1795724094740,0,1,0,'','There are 2 boxes with 2 pens each, so we multiply.','(2 * 2)',NULL,'accepted',NULL,1.0);
INSERT INTO "prompts" VALUES(X'01A2197EB7DC73279A0ED7EAD0DD09D7',X'01A2197EB7D170ABB180F7CE4BDC7E73',1,0,0,'train',X'3002B443B9F93B86EF914C35862267844BFACBD52D41AA2E840EB2D1C16A8B31',313,'answered','',1795724094740,0,1,0,'','There are 3 boxes with 3 pens each, so we multiply.','(3 * 3)',NULL,'accepted',NULL,1.0);
INSERT INTO "prompts" VALUES(X'01A2197EB7DC73279A0ED7EB7ED18D57',X'01A2197EB7D170ABB180F7CE4BDC7E73',1,1,0,'train',X'CE2B9F5ECCE0A1B847A4A265AC2A98119B83791D7E2981FF0D227810400A5723',313,'answered','',1795724094740,0,1,0,'','There are 3 boxes with 3 pens each, so we multiply.','(3 * 3)',NULL,'accepted',NULL,1.0);
INSERT INTO "prompts" VALUES(X'01A2197EB7DC73279A0ED7ECAE2FA6E0',X'01A2197EB7D170ABB180F7CE4BDC7E73',2,0,0,'train',X'41638EB9EDA46988D4EB12B1A839C29CF167CECD3C5593F35021DED7C46B6D9A',313,'answered','',1795724094740,0,1,0,'','There are 4 boxes with 4 pens each, so we multiply.','(4 * 4)',NULL,'accepted',NULL,1.0);
INSERT INTO "prompts" VALUES(X'01A2197EB7DC73279A0ED7EDB3D1D96B',X'01A2197EB7D170ABB180F7CE4BDC7E73',2,1,0,'train',X'88B85F0EC84D11876C04CE417FE789D02791640A3F32A24206595E5F681E528C',313,'answered','',1795724094740,0,1,0,'','There are 4 boxes with 4 pens each, so we multiply.','(4 * 4)',NULL,'accepted',NULL,1.0);
INSERT INTO "prompts" VALUES(X'01A2197EB7DC73279A0ED7EE4C096A75',X'01A2197EB7D170ABB180F7CE4BDC7E73',3,0,0,'train',X'0C5B26D00D4A81085C8C8C87055BB8B740D69FBA75CBB27103F8341434BF1581',313,'answered','',1795724094740,0,1,0,'','There are 5 boxes with 5 pens each, so we multiply.','(5 * 5)',NULL,'accepted',NULL,1.0);
INSERT INTO "prompts" VALUES(X'01A2197EB7DC73279A0ED7EF14ACB0CB',X'01A2197EB7D170ABB180F7CE4BDC7E73',3,1,0,'train',X'35BC8C39EF0386B241F70CC7EB3FB59FB57B000EBE47F46A8BD816ADEF4CCFD6',313,'answered','',1795724094740,0,1,0,'','There are 5 boxes with 5 pens each, so we multiply.','(5 * 5)',NULL,'accepted',NULL,1.0);
INSERT INTO "prompts" VALUES(X'01A2197EB7DC73279A0ED7F08FE7F792',X'01A2197EB7D170ABB180F7CE4BDC7E73',4,0,0,'train',X'05B955DB2822E9CE15BD0C90D08DE9A404197846E4F4BED9288704F866C163F5',313,'answered','',1795724094748,0,1,0,'','There are 6 boxes with 6 pens each, so we multiply.','(6 * 6)',NULL,'accepted',NULL,1.0);
INSERT INTO "prompts" VALUES(X'01A2197EB7DC73279A0ED7F145DFA6A2',X'01A2197EB7D170ABB180F7CE4BDC7E73',4,1,0,'train',X'820B0BD09C12942927C8D29EE4284ECD2295C1A5C5503A7CA78E7AEC4604DA1A',313,'answered','',1795724094748,0,1,0,'','There are 6 boxes with 6 pens each, so we multiply.','(6 * 6)',NULL,'accepted',NULL,1.0);
INSERT INTO "prompts" VALUES(X'01A2197EB7DC73279A0ED7F20C023CC7',X'01A2197EB7D170ABB180F7CE4BDC7E73',5,0,0,'train',X'CBB27140DB1987D1BD8B830BB720B52FA79EEF34894C07AF10524228BDBDE4AE',313,'answered','',1795724094748,0,1,0,'','There are 7 boxes with 7 pens each, so we multiply.','(7 * 7)',NULL,'accepted',NULL,1.0);
INSERT INTO "prompts" VALUES(X'01A2197EB7DC73279A0ED7F3B077F22B',X'01A2197EB7D170ABB180F7CE4BDC7E73',5,1,0,'train',X'366E30649ED4055E280A4CCE96BF1699EE45CF1E1E2B5C8FF5C11A6C9DBE2930',313,'answered','',1795724094748,0,1,0,'','There are 7 boxes with 7 pens each, so we multiply.','(7 * 7)',NULL,'accepted',NULL,1.0);
INSERT INTO "prompts" VALUES(X'01A2197EB7DD737589FD63367C184E42',X'01A2197EB7D170ABB180F7CE4BDC7E73',8,0,0,'evaluate',X'3400FF5BE27E4933CA79949F9AFAA1ADE9F8FF454181F455CD1CBC72BF00F608',313,'answered','',1795724094755,0,1,0,'','There are 30 boxes with 2 pens each, so we multiply.','(30 * 2)',NULL,'accepted',NULL,1.0);
INSERT INTO "prompts" VALUES(X'01A2197EB7DD737589FD63375348FDC6',X'01A2197EB7D170ABB180F7CE4BDC7E73',9,0,0,'evaluate',X'B7398D933EBB2C823F24CE87E0DC1B7308C45DBF332C968D7A963E3A4573CF4A',313,'answered','',1795724094755,0,1,0,'','There are 31 boxes with 3 pens each, so we multiply.','(31 * 3)',NULL,'accepted',NULL,1.0);
INSERT INTO "prompts" VALUES(X'01A2197EB7DD737589FD6338D47B4D65',X'01A2197EB7D170ABB180F7CE4BDC7E73',10,0,0,'evaluate',X'9CCF04ED2A9C2DAACE7C8F95F3D5CB08236F273DFFD198024E48361F4D52B76E',313,'answered','',1795724094755,0,1,0,'','There are 32 boxes with 4 pens each, so we multiply.','(32 * 4)',NULL,'accepted',NULL,1.0);
CREATE TABLE runs (
    id BLOB PRIMARY KEY NOT NULL,
    distillation_id BLOB NOT NULL UNIQUE REFERENCES distillations (id) ON DELETE CASCADE,
    state TEXT NOT NULL CHECK (state IN ('pending', 'leased', 'succeeded', 'failed', 'cancelled')),
    fence INTEGER NOT NULL DEFAULT 0,
    trainer TEXT NOT NULL DEFAULT '',
    lease_until INTEGER NOT NULL DEFAULT 0,
    step INTEGER NOT NULL DEFAULT 0,
    resume_path TEXT NOT NULL DEFAULT '',
    reason TEXT NOT NULL DEFAULT '',
    created_at INTEGER NOT NULL
) STRICT;
INSERT INTO "runs" VALUES(X'01A2197EBC1070D2B0DE1C8204146DCF',X'01A2197EB7D170ABB180F7CE4BDC7E73','succeeded',2,'',0,12,'runs/01a2197e-bc10-70d2-b0de-1c8204146dcf/2/12-resume','',1795724065808);
CREATE TABLE versions (
    name TEXT PRIMARY KEY NOT NULL,
    newest INTEGER NOT NULL
) STRICT;
INSERT INTO "versions" VALUES('boxes',1);
CREATE INDEX datasets_by_name ON datasets (name, state, created_at, id);
CREATE INDEX datasets_by_fingerprint ON datasets (fingerprint, state, created_at, id);
CREATE INDEX datasets_by_age ON datasets (state, created_at, id);
CREATE INDEX examples_by_split ON examples (dataset_id, split, row_index, labelled, answered);
CREATE UNIQUE INDEX examples_by_key ON examples (dataset_id, key) WHERE key IS NOT NULL;
CREATE INDEX distillations_by_state ON distillations (state, driver_until);
CREATE INDEX distillations_by_age ON distillations (created_at, id);
CREATE INDEX distillations_by_dataset ON distillations (dataset_id);
CREATE INDEX prompts_by_state ON prompts (distillation_id, state, row_index, sample, hinted, purpose);
CREATE INDEX prompts_by_verdict ON prompts (distillation_id, state, purpose, verdict, reason);
CREATE INDEX prompts_unfinished ON prompts (id) WHERE state IN ('pending', 'leased');
CREATE INDEX prompts_by_key ON prompts (key) WHERE state = 'leased';
CREATE INDEX runs_by_state ON runs (state, created_at);
CREATE INDEX models_by_age ON models (created_at, id);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('outbox',15);
COMMIT;
