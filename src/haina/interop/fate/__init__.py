"""FATE, 1.x and 2.x: tables, jobs and HomoLR models written and read as FATE does, and FATE Flow called over REST.

FATE's packages pin versions that exclude ours (pydantic 1, numpy 1), so they are never imported. What its files look like was learnt from what its
own clients write (fate-client 1.11.3 and 2.2.0) and from what its server (FATE Flow 2.2.0) takes.
"""
