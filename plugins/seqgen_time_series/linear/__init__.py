"""Linear autoregression: AR-Net's model, fitted exactly, by Yule-Walker or by gradient descent.

Start with `ARNet` in `model.py`. Independent of the rest of the plugin; needs numpy and scipy, and
torch only where a network is trained (`sgd.py`).
"""
