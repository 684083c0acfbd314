from components.values import AudioFeatures, AudioWindow
import torch
def window(features, index):
    return AudioWindow(features.features_PFNE[:, torch.tensor(index)])
