"""nnU-Net's own trainers that train the network of the plans as it is planned.

Source: ``nnUNetTrainer.py`` and ``variants/**`` below ``training/nnUNetTrainer`` of nnunetv2 2.8.1, and of 2.0 to
2.4 (``nnUNetTrainerDAOrd0``). They change augmentation, sampling, loss, optimizer, schedule, length or deep
supervision; prediction sees none of it. Not among them are ``nnUNetTrainerBN`` and the Primus trainers: plans or
weights of their models are refused.
"""

from __future__ import annotations

PLANNED_NETWORK = frozenset(
    {"nnUNetTrainer", "nnUNet_Trainer_BS8", "nnUNetTrainerNoDeepSupervision"}
    | {"nnUNetTrainerBenchmark_5epochs", "nnUNetTrainerBenchmark_5epochs_noDataLoading"}
    # length
    | {"nnUNetTrainer_1epoch", "nnUNetTrainer_5epochs", "nnUNetTrainer_10epochs", "nnUNetTrainer_20epochs"}
    | {"nnUNetTrainer_50epochs", "nnUNetTrainer_100epochs", "nnUNetTrainer_250epochs", "nnUNetTrainer_500epochs"}
    | {"nnUNetTrainer_750epochs", "nnUNetTrainer_2000epochs", "nnUNetTrainer_4000epochs", "nnUNetTrainer_8000epochs"}
    | {"nnUNetTrainer_250epochs_NoMirroring", "nnUNetTrainer_2000epochs_NoMirroring"}
    | {"nnUNetTrainer_4000epochs_NoMirroring", "nnUNetTrainer_8000epochs_NoMirroring"}
    # augmentation
    | {"nnUNetTrainerNoDA", "nnUNetTrainerNoMirroring", "nnUNetTrainer_noDummy2DDA"}
    | {"nnUNetTrainer_DASegOrd0", "nnUNetTrainer_DASegOrd0_NoMirroring"}
    | {"nnUNetTrainer_onlyMirror01", "nnUNetTrainer_onlyMirror01_1500ep", "nnUNetTrainer_onlyMirror01_DASegOrd0"}
    | {"nnUNetTrainer_onlyMirror01_DA5", "nnUNetTrainerDAOrd0"}
    | {"nnUNetTrainerDA5", "nnUNetTrainerDA5ord0", "nnUNetTrainerDA5Segord0", "nnUNetTrainerDA5_10epochs"}
    # sampling
    | {"nnUNetTrainer_probabilisticOversampling", "nnUNetTrainer_probabilisticOversampling_033"}
    | {"nnUNetTrainer_probabilisticOversampling_010"}
    # loss
    | {"nnUNetTrainerCELoss", "nnUNetTrainerCELoss_5epochs", "nnUNetTrainerDiceLoss"}
    | {"nnUNetTrainerDiceCELoss_noSmooth", "nnUNetTrainerDiceTopK10Loss"}
    | {"nnUNetTrainerTopk10Loss", "nnUNetTrainerTopk10LossLS01"}
    # optimizer and schedule
    | {"nnUNetTrainerAdam", "nnUNetTrainerAdam1en3", "nnUNetTrainerAdam3en4"}
    | {"nnUNetTrainerVanillaAdam", "nnUNetTrainerVanillaAdam1en3", "nnUNetTrainerVanillaAdam3en4"}
    | {"nnUNetTrainerAdan", "nnUNetTrainerAdan1en1", "nnUNetTrainerAdan1en3", "nnUNetTrainerAdan3en4"}
    | {"nnUNetTrainerAdanCosAnneal", "nnUNetTrainerCosAnneal", "nnUNetTrainer_warmup"}
)
