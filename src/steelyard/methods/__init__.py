"""One published method per file; nothing in here knows about autograd, ranks or files.

To add a method, write one file and one row below.
"""

from __future__ import annotations

METHODS: dict[str, str] = {
    # reads losses only
    "equal": "steelyard.methods.equal:Equal",
    "fixed": "steelyard.methods.fixed:Fixed",
    "schedule": "steelyard.methods.schedule:Schedule",
    "random": "steelyard.methods.random:Random",
    "initial-scale": "steelyard.methods.initial_scaled:InitialScaled",
    "log": "steelyard.methods.log:Log",
    "gls": "steelyard.methods.gls:GLS",
    "uw": "steelyard.methods.uw:UW",
    "uw-revised": "steelyard.methods.uw_revised:UWRevised",
    "uw-o": "steelyard.methods.uw_optimal:UWOptimal",
    "uw-so": "steelyard.methods.uw_optimal:UWSoftOptimal",
    "dwa": "steelyard.methods.dwa:DWA",
    "ema": "steelyard.methods.ema:EMA",
    "cov": "steelyard.methods.cov:CoV",
    "slaw": "steelyard.methods.slaw:SLAW",
    "lbtw": "steelyard.methods.lbtw:LBTW",
    "imtl-l": "steelyard.methods.imtl_l:IMTLL",
    "stch": "steelyard.methods.stch:STCH",
    "famo": "steelyard.methods.famo:FAMO",
    "softadapt": "steelyard.methods.softadapt:SoftAdapt",
    "relobralo": "steelyard.methods.relobralo:ReLoBRaLo",
    "coba": "steelyard.methods.coba:CoBa",
    "go4align": "steelyard.methods.go4align:GO4Align",
    "igb": "steelyard.methods.igb:IGB",
    "ldc-mtl": "steelyard.methods.ldc_mtl:LDCMTL",
    # reads norms or the Gramian
    "inverse-norm": "steelyard.methods.inverse_norm:InverseNorm",
    "mgda": "steelyard.methods.mgda:MGDA",
    "pe-ltr": "steelyard.methods.pe_ltr:PELTR",
    "max-norm": "steelyard.methods.db_mtl:MaxNorm",
    "db-mtl": "steelyard.methods.db_mtl:DBMTL",
    "pcgrad": "steelyard.methods.pcgrad:PCGrad",
    "gradops": "steelyard.methods.gradops:GradOPS",
    "cagrad": "steelyard.methods.cagrad:CAGrad",
    "conicgrad": "steelyard.methods.conicgrad:ConicGrad",
    "nash-mtl": "steelyard.methods.nash_mtl:NashMTL",
    "fairgrad": "steelyard.methods.fairgrad:FairGrad",
    "imtl-g": "steelyard.methods.imtl_g:IMTLG",
    "aligned-mtl": "steelyard.methods.aligned_mtl:AlignedMTL",
    "upgrad": "steelyard.methods.upgrad:UPGrad",
    "dualproj": "steelyard.methods.dualproj:DualProj",
    "gradnorm": "steelyard.methods.gradnorm:GradNorm",
    "gradvac": "steelyard.methods.gradvac:GradVac",
    "config": "steelyard.methods.config:ConFIG",
    "imtl": "steelyard.methods.imtl:IMTL",
    "pcd": "steelyard.methods.pcd:PCD",
    "gcs": "steelyard.methods.gcs:GCS",
    "ol-aux": "steelyard.methods.ol_aux:OLAux",
    "metabalance": "steelyard.methods.metabalance:MetaBalance",
    "multibalance": "steelyard.methods.multibalance:MultiBalance",
    # reads rows
    "graddrop": "steelyard.methods.graddrop:GradDrop",
    "moco": "steelyard.methods.moco:MoCo",
    "adatask": "steelyard.methods.adatask:AdaTask",
    "excess-mtl": "steelyard.methods.excess_mtl:ExcessMTL",
    "lr-annealing": "steelyard.methods.lr_annealing:LRAnnealing",
    # reads the rows of two further batches
    "sdmgrad": "steelyard.methods.sdmgrad:SDMGrad",
    "modo": "steelyard.methods.modo:MoDo",
    # looks one step ahead
    "hydalearn": "steelyard.methods.hydalearn:HydaLearn",
    "auto-lambda": "steelyard.methods.auto_lambda:AutoLambda",
}
